"""From published bundles to served models: verified, loaded beside what is served, then swapped in."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import RepositoryError
from models.labels import LABELS, STABLE
from models.manifest import read_manifest
from models.repository import Repository
from service.core.errors import RecurveError, VersionUnfit
from service.core.ports import Engine
from service.core.registry import Registry, Served, ServedModel
from service.core.types import ModelSpec
from service.specs import spec_of

log = logging.getLogger("recurve.loader")

RETRY_S = 30.0  # a bundle that failed is looked at again when its labels move, or after this

EngineOpener = Callable[[Path, ModelSpec], Engine]
EngineWrapper = Callable[[Engine, ModelSpec], Engine]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a published model, or one version of it, is not served."""

    model: str
    version: int | None
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """For /readyz."""
        return {"model": self.model, "version": self.version, "detail": self.detail}


class Loader:
    """Keeps `registry` supplied from `repository`: at `refresh`, and then by itself every `poll_s` after `start`.

    Every version that has a label is loaded. Newly published models are added; where labels moved, what they name
    now is loaded beside what is served and then swapped in whole. What does not load is logged and told by `problems`:
    its model stays as it was, its label at the version it had, and no other model is held up. An engine has run once
    before `wrap` gets it to be served.
    """

    def __init__(
        self,
        repository: Repository,
        registry: Registry,
        open_engine: EngineOpener,
        *,
        wrap: EngineWrapper = lambda engine, spec: engine,
        poll_s: float = 1.0,
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._open_engine = open_engine
        self._wrap = wrap
        self._poll_s = poll_s
        self._lock = threading.Lock()  # of all below that names models, and of a load
        self._seen: dict[str, _Signature] = {}
        self._failures: dict[str, _Failure] = {}
        self._prepared: dict[tuple[str, int], Served] = {}
        self._trouble: Problem | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def problems(self) -> list[dict[str, Any]]:
        """What could not be loaded at the last look, one object each."""
        found = [] if self._trouble is None else [self._trouble]
        for failure in list(self._failures.values()):
            found += failure.problems
        return [problem.as_dict() for problem in found]

    def refresh(self) -> bool:
        """Look once; True if the registry was changed."""
        try:
            names = self._repository.names()
        except OSError as error:
            self._report(Problem("", None, f"the model repository can't be read: {error}"))
            return False
        self._trouble = None
        changed = [name for name in names if self._reload(name)]
        with self._lock:
            for gone in self._failures.keys() - set(names):
                del self._failures[gone]
        return bool(changed)

    def reload(self, name: str) -> None:
        """Look at one model now. Costs a look at one file's date if nothing moved; waits for a load under way."""
        self._reload(name)

    @contextmanager
    def prepared(self, name: str, number: int) -> Iterator[None]:
        """Within, that version is loaded: a label that moves to it is served without another load.

        VersionUnfit if it does not verify or load; a service may then leave the label where it is.
        """
        with self._lock:
            served = self._registry.models.get(name)
            if served is None or number not in served.versions:
                like = None if served is None else served.labelled().spec
                try:
                    self._prepared[name, number] = self._load_version(name, number, like)
                except Exception as error:  # as in `_load`
                    raise VersionUnfit(f"version {number} of model {name!r} does not load: {_why(error)}") from error
        try:
            yield
        finally:
            with self._lock:
                self._prepared.pop((name, number), None)

    def start(self) -> None:
        """Poll in a thread of this process until `stop`."""
        self._thread = threading.Thread(target=self._poll, name="loader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End polling; a load under way is waited for."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self) -> None:
        while not self._stopped.wait(self._poll_s):
            try:
                self.refresh()
            except Exception:  # the thread's outermost handler: the next look may fare better
                log.exception("looking for new models failed")

    def _report(self, trouble: Problem) -> None:
        if trouble != self._trouble:
            log.error("models can't be looked up", extra={"why": trouble.detail})
        self._trouble = trouble

    def _reload(self, name: str) -> bool:
        """True if the registry was changed."""
        if not self._is_due(name):
            return False
        with self._lock:
            if not self._is_due(name):  # somebody else was first
                return False
            signature = _signature(self._repository.root / name)  # before the labels are read: later ones differ
            model = self._load(name, self._registry.models.get(name))
            if model is not None:
                self._registry.replace({**self._registry.models, name: model})
                log.info("serving", extra={"model": name, "labels": dict(model.labels)})
            self._seen[name] = signature
            return model is not None

    def _is_due(self, name: str) -> bool:
        if name not in self._seen or self._seen[name] != _signature(self._repository.root / name):
            return True
        failure = self._failures.get(name)
        return failure is not None and time.monotonic() >= failure.retry_at

    def _load(self, name: str, served: ServedModel | None) -> ServedModel | None:
        """What is to be served instead of `served`; None if that stays."""
        try:
            labels = self._repository.labels(name)
        except (RepositoryError, OSError) as error:
            self._fail(name, [Problem(name, None, str(error))])
            return None
        known = {number: version for (of, number), version in self._prepared.items() if of == name}
        known |= {} if served is None else served.versions
        versions: dict[int, Served] = {}
        problems = []
        stable = labels.labels.get(STABLE)
        like = None if served is None else served.labelled().spec
        for number in sorted(set(labels.labels.values()), key=lambda number: (number != stable, number)):
            try:
                loaded = known.get(number)
                if loaded is None or self._is_another(loaded.spec):
                    loaded = self._load_version(name, number, like)
                versions[number] = loaded
                like = versions[number].spec if like is None else like
            except Exception as error:  # noqa: BLE001  # whatever a foreign bundle makes a runtime raise is its problem
                problems.append(Problem(name, number, _why(error)))
        if not problems and STABLE not in labels.labels:
            problems.append(Problem(name, None, f"no version has the label {STABLE!r}"))
        if problems:
            self._fail(name, problems)
        else:
            self._failures.pop(name, None)
        if labels.labels.get(STABLE) not in versions:
            return None
        now = {label: number for label, number in labels.labels.items() if number in versions}
        for label in labels.labels.keys() - now.keys():  # its new version does not load
            if served is not None and label in served.labels:
                now[label] = served.labels[label]
                versions[now[label]] = known[now[label]]
        model = ServedModel(name, labels.generation, dict(sorted(now.items())), versions)
        return None if served is not None and _same(model, served) else model

    def _is_another(self, spec: ModelSpec) -> bool:
        """Whether another bundle has the number of a loaded version: its model was removed and published anew. One that
        is damaged meanwhile is what it was: it serves on."""
        try:
            manifest = read_manifest(self._repository.root / spec.name / str(spec.version))
        except (OSError, ValueError):
            return False
        return manifest.fingerprint != spec.fingerprint

    def _load_version(self, name: str, number: int, like: ModelSpec | None) -> Served:
        """VersionUnfit if it takes or gives other quantities than `like`, under which clients' records are kept: no
        published version does, but a folder may have been copied from another repository."""
        manifest = self._repository.verify(name, number)
        spec = spec_of(manifest, number)
        if like is not None and _contract(spec) != _contract(like):
            what = f"its features, targets, units or interval are not those of version {like.version}"
            raise VersionUnfit(f"{what}; publish it under another name")
        engine = self._open_engine(self._repository.bundle(name, number), spec)
        _warm_up(engine, spec)
        return Served(spec, self._wrap(engine, spec), manifest.model_dump(mode="json"))

    def _fail(self, name: str, problems: list[Problem]) -> None:
        before = self._failures.get(name)
        if before is None or before.problems != problems:
            for problem in problems:
                log.error(
                    "a bundle does not load",
                    extra={"model": problem.model, "version": problem.version, "why": problem.detail},
                )
        self._failures[name] = _Failure(time.monotonic() + RETRY_S, problems)


def _warm_up(engine: Engine, spec: ModelSpec) -> None:
    """One step and one look at the gates, so that no request pays for a runtime's first run."""
    x, state = np.ones((1, len(spec.features)), np.float32), spec.initial_state[None]
    engine.step(x, state)
    engine.gates(x, state)


@dataclass(frozen=True, slots=True)
class _Failure:
    retry_at: float
    problems: list[Problem]


_Signature = tuple[int, int, int] | None


def _signature(model: Path) -> _Signature:
    """What tells one labels.json from the next, None without one. It is replaced at each change, never written to."""
    try:
        found = os.stat(model / LABELS)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _contract(spec: ModelSpec) -> tuple[Any, ...]:
    """What all versions of a model have in common, as `Manifest.contract` has it."""
    features = tuple((feature.name, feature.unit) for feature in spec.features)
    return features, tuple((target.name, target.unit) for target in spec.targets), spec.interval_s


def _same(one: ServedModel, other: ServedModel) -> bool:
    if (one.generation, one.labels, one.versions.keys()) != (other.generation, other.labels, other.versions.keys()):
        return False
    return all(version is other.versions[number] for number, version in one.versions.items())


def _why(error: Exception) -> str:
    if isinstance(error, RecurveError):
        return error.detail
    return str(error) if isinstance(error, (RepositoryError, OSError)) else f"{type(error).__name__}: {error}"
