"""The model repository: versions and labels on disk, published whole or not at all.

    <root>/<name>/<version>/…            a bundle, never changed once it is there
    <root>/<name>/labels.json            {"format": 1, "generation": 7, "labels": {"stable": 3}}
    <root>/<name>/evidence/<version>.json  what live traffic said of a version (evidence.py)
    <root>/<name>/.lock                  held while a version or a label appears
    <root>/<name>/.staging-<random>/     a publish under way, or what a killed one left; nobody reads it

Readers take no lock and write nothing, so a service may mount the root read-only.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.disk import fsync, fsync_tree, locked, regular_files, replace_durably, sha256, try_lock
from models.errors import (
    BundleDamaged,
    DeleteRefused,
    InvalidName,
    LabelsMoved,
    PublishRefused,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from models.evidence import read_evidence, write_evidence
from models.labels import STABLE, Labels, read_labels, write_labels
from models.manifest import MANIFEST, Manifest, Name, read_manifest

DEFAULT_ROOT = Path("models/published")

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_WHATEVER = object()
_LOCK, _LEASE, _STAGING, _BUNDLE = ".lock", "lease", ".staging-", "bundle"


class Repository:
    """Versions and labels of models under one folder, for any number of readers and publishers at once."""

    def __init__(self, root: Path | str = DEFAULT_ROOT, *, lock_wait_s: float = 30.0) -> None:
        self.root = Path(root)
        self._lock_wait_s = lock_wait_s

    def names(self) -> list[str]:
        """The models that have a version, sorted; none where there is no repository yet."""
        try:
            entries = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        except FileNotFoundError:
            return []
        return [name for name in entries if _valid(name) and self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """The published versions of a model, rising; none for a model that is not there."""
        try:
            with os.scandir(self._model(name)) as entries:
                found = [e.name for e in entries if _VERSION.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(map(int, found))

    def labels(self, name: str) -> Labels:
        """The labels of a model as they stand now; LabelsDamaged if the file is not readable as such."""
        return read_labels(self._model(name))

    def resolve(self, name: str, label: str = STABLE) -> int:
        """The version under a label. UnknownModel, UnknownLabel, or UnknownVersion if its folder is gone."""
        labels = self.labels(name).labels
        if label not in labels:
            if not self.versions(name):
                raise UnknownModel(name, self.root, self.names())
            raise UnknownLabel(name, label, labels)
        self.bundle(name, labels[label])
        return labels[label]

    def bundle(self, name: str, version: int) -> Path:
        """The folder of a version; UnknownModel or UnknownVersion if there is none."""
        versions = self.versions(name)
        if version not in versions:
            if not versions:
                raise UnknownModel(name, self.root, self.names())
            raise UnknownVersion(name, version, versions)
        return self._model(name) / str(version)

    def verify(self, name: str, version: int) -> Manifest:
        """The manifest of a version whose every byte is as published; BundleDamaged otherwise.

        Each file must be there with its sha256, and nothing else may be: no link, and no exception for caches or
        editors' leavings, because a runtime may read what it finds. Empty folders (TensorFlow writes one) are nothing.
        """
        folder = self.bundle(name, version)
        try:
            manifest = read_manifest(folder)
        except (OSError, ValueError) as error:
            raise BundleDamaged(name, version, [f"{MANIFEST} can't be read ({error})"]) from error
        problems = [] if manifest.name == name else [f"{MANIFEST} is of model {manifest.name!r}"]
        files, odd = regular_files(folder)
        files.pop(MANIFEST, None)
        problems += [f"{path} is a link or no file" for path in sorted(odd)]
        problems += [f"{path} is missing" for path in sorted(manifest.files.keys() - files.keys() - set(odd))]
        problems += [f"{path} is foreign" for path in sorted(files.keys() - manifest.files.keys())]
        for path in sorted(files.keys() & manifest.files.keys()):
            if sha256(files[path]) != manifest.files[path]:
                problems.append(f"{path} has other bytes")
        if problems:
            raise BundleDamaged(name, version, problems)
        return manifest

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """An empty folder on the repository's file system to write a bundle into; gone again after the block.

        A killed process leaves its folder behind; the next `stage` of the model clears it, because the lease file
        in it is no longer locked. Those of living processes are left alone, in whatever container they run.
        """
        model = self._model(name)
        model.mkdir(parents=True, exist_ok=True)
        with locked(model / _LOCK, self._lock_wait_s):
            _clear_abandoned(model)
            hold = model / f"{_STAGING}{secrets.token_hex(8)}"
            hold.mkdir()
            lease = try_lock(hold / _LEASE, create=True)
        try:
            (hold / _BUNDLE).mkdir()
            yield hold / _BUNDLE
        finally:
            shutil.rmtree(hold, ignore_errors=True)
            if lease is not None:
                os.close(lease)

    def publish(self, staging: Path, manifest: Manifest, label: str | None = STABLE) -> int:
        """Makes a staged bundle the next version, whole and durable, and then moves `label` to it; the version.

        Writes manifest.json with the digests of all staged files. PublishRefused for a folder that is not of
        `stage`, for links in it, and for other features, targets, units or interval than the model's versions have.
        Killed before the folder is renamed, there is no version; killed after, a whole one, perhaps without its label.
        """
        name, model = manifest.name, self._model(manifest.name)
        if label is not None:
            _check_label(label)
        if staging.name != _BUNDLE or staging.resolve().parent.parent != model.resolve():
            raise PublishRefused(name, f"{staging} was not staged for it; write the bundle inside `stage({name!r})`")
        files, odd = regular_files(staging)
        files.pop(MANIFEST, None)
        if odd:
            raise PublishRefused(name, f"a bundle holds regular files only, and these are not: {', '.join(odd)}")
        complete = manifest.model_copy(update={"files": {path: sha256(files[path]) for path in sorted(files)}})
        replace_durably(staging / MANIFEST, complete.model_dump_json(indent=2).encode() + b"\n")
        fsync_tree(staging)
        with locked(model / _LOCK, self._lock_wait_s):
            self.refuse_other_contract(name, read_manifest(staging).contract())
            version, labels = max(self.versions(name), default=0) + 1, read_labels(model)
            os.rename(staging, model / str(version))
            fsync(model)
            fsync(self.root)
            if label is not None:
                write_labels(model, labels.moved(label, version))
        return version

    def set_label(self, name: str, label: str, version: int, expected_generation: int | None = None) -> Labels:
        """Moves a label to a version that verifies; the labels then. Setting what is set changes no generation.

        `expected_generation` as for `drop_label`.
        """
        _check_label(label)
        self.bundle(name, version)
        return self._change_labels(name, lambda labels: labels.moved(label, version), version, expected_generation)

    def drop_label(self, name: str, label: str, expected_generation: int | None = None) -> Labels:
        """Takes a label away; the labels then. `stable` stays: whoever's label vanishes falls back to it.

        With `expected_generation` only from the labels of that generation: LabelsMoved otherwise, and nothing changes.
        """
        if label == STABLE:
            raise DeleteRefused(name, f"label {STABLE!r}", "it is what is served by default; move it instead")
        if label not in self.labels(name).labels:
            raise UnknownLabel(name, label, self.labels(name).labels)
        return self._change_labels(name, lambda labels: labels.moved(label, None), None, expected_generation)

    def promote(self, name: str, version: int, expected_generation: int | None = None) -> Labels:
        """Serves a version that verifies, in one change of the labels (`Labels.promoted`); the labels then.

        With `expected_generation` only from the labels of that generation, on which it was decided: LabelsMoved
        otherwise.
        """
        self.bundle(name, version)
        return self._change_labels(name, lambda labels: labels.promoted(version), version, expected_generation)

    def keep_evidence(self, name: str, version: int, evidence: dict[str, Any], *, instead_of: Any = _WHATEVER) -> bool:
        """Replaces what is kept of a published version, durably; see `models.evidence`. True if it did.

        With `instead_of` (what `evidence` told, or None) only if that is what is kept still.
        """
        model = self.bundle(name, version).parent
        with locked(model / _LOCK, self._lock_wait_s):
            if instead_of is not _WHATEVER and read_evidence(model, version) != instead_of:
                return False
            write_evidence(model, version, evidence)
        return True

    def evidence(self, name: str, version: int) -> dict[str, Any] | None:
        """What is kept of a version, one that was deleted too; None if nothing is, or nothing that reads."""
        return read_evidence(self._model(name), version)

    def delete(self, name: str, version: int) -> None:
        """Removes a version. DeleteRefused while a label names it, and for the newest: no number is used twice."""
        self.bundle(name, version)
        with self.stage(name) as staging, locked(self._model(name) / _LOCK, self._lock_wait_s):
            bundle = self.bundle(name, version)
            holders = [label for label, number in self.labels(name).labels.items() if number == version]
            if holders:
                raise DeleteRefused(name, f"version {version}", f"labelled {', '.join(holders)}; move the label first")
            if version == self.versions(name)[-1]:
                raise DeleteRefused(name, f"version {version}", "the newest is kept so that its number is not reused")
            os.rename(bundle, staging)  # out of sight at once, then removed with the staging folder
            fsync(bundle.parent)

    def _model(self, name: str) -> Path:
        if not _valid(name):
            raise InvalidName("model", name)
        return self.root / name

    def _change_labels(
        self, name: str, change: Callable[[Labels], Labels], verified: int | None, expected: int | None = None
    ) -> Labels:
        """Changes the labels in one go, if version `verified` is whole and the generation is the one expected."""
        model = self._model(name)
        with locked(model / _LOCK, self._lock_wait_s):
            before = read_labels(model)
            if expected is not None and before.generation != expected:
                raise LabelsMoved(name, expected, before.generation)
            if verified is not None:
                self.verify(name, verified)
            after = change(before)
            if after is not before:
                write_labels(model, after)
        return after

    def refuse_other_contract(self, name: str, contract: tuple[Any, ...]) -> None:
        """PublishRefused if a version of `name` promises else than `contract` (`Manifest.contract`).

        A damaged version is served nowhere and must not block its replacement.
        """
        for version in self.versions(name):
            try:
                published = read_manifest(self._model(name) / str(version)).contract()
            except (OSError, ValueError):
                continue
            if published == contract:
                continue
            pairs = zip(("features", "targets", "interval_s"), published, contract, strict=True)
            changes = "; ".join(f"{part} were {old!r} and would be {new!r}" for part, old, new in pairs if old != new)
            raise PublishRefused(
                name, f"its clients rely on what version {version} promises, and {changes}. Use another name"
            )


def _valid(name: str) -> bool:
    try:
        _NAME.validate_python(name, strict=True)
    except ValidationError:
        return False
    return True


def _check_label(label: str) -> None:
    if not _valid(label):
        raise InvalidName("label", label)


def _clear_abandoned(model: Path) -> None:
    """Removes staging folders whose process is gone. Under the model's lock, in which each folder gets its lease."""
    for hold in model.glob(f"{_STAGING}*"):
        try:
            lease = try_lock(hold / _LEASE, create=False)
        except FileNotFoundError:  # killed before it had one
            shutil.rmtree(hold, ignore_errors=True)
            continue
        except PermissionError:  # another user's: theirs to clear
            continue
        if lease is not None:
            shutil.rmtree(hold, ignore_errors=True)
            os.close(lease)
