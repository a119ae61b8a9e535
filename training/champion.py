"""The version to beat, and the network to train on from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.labels import STABLE
from models.manifest import MODEL_KERAS, Manifest, read_manifest
from models.repository import Repository
from training.job import Job
from training.refusals import TrainingError
from training.sources import Series


@dataclass(frozen=True, slots=True)
class Champion:
    """The stable version of a model, every byte of it as it was published."""

    version: int
    folder: Path
    manifest: Manifest


def champion_of(repository: Repository, name: str) -> Champion | None:
    """The champion; None for a model that serves nothing yet. BundleDamaged if it is not what was published."""
    version = repository.labels(name).labels.get(STABLE)
    if version is None:
        return None
    manifest = repository.verify(name, version)
    return Champion(version, repository.bundle(name, version), manifest)


def known_until(repository: Repository, name: str) -> float | None:
    """The time of the newest observation that any version of `name`, or the last one rejected, was made from.

    Times yet to come say nothing: after a row of a clock that was ahead, no other would ever be new.
    """
    folders = [repository.bundle(name, version) for version in repository.versions(name)]
    found = []
    for folder in [*folders, repository.root / f"{name}.refused"]:
        try:
            found.append(read_manifest(folder).data_until)
        except (OSError, ValueError):  # none was rejected, or a damaged version, of which nothing is known
            continue
    return max((each for each in found if each is not None and each <= time.time()), default=None)


def count_new(series: Sequence[Series], until: float | None) -> int:
    """How many observations are newer than `until`; all where nothing is known. None that is yet to come, or those of a
    clock that is ahead would be new each time."""
    if until is None:
        return sum(map(len, series))
    now = time.time()
    return sum(int(((each.times > until) & (each.times <= now)).sum()) for each in series)


def warm_network(champion: Champion, job: Job, until: float) -> tuple[Any, str]:
    """The champion's network to be trained on, or None and why a new one has to be made. Starts Keras.

    `until`: the time of the newest observation that may be learnt from; what is newer judges.
    """
    if (champion.manifest.trained_until or until) > until:
        return None, f"version {champion.version} has learnt from part of the holdout"
    made_by, now = champion.manifest.job or {}, job.model_dump(mode="json")
    for part in ("architecture", "network", "quantiles"):
        if made_by.get(part) != now[part]:
            return None, f"version {champion.version} has another {part} than the job says"
    if _columns(made_by) != _columns(now):
        return None, f"version {champion.version} was made from other features or targets than the job says"
    file = champion.folder / MODEL_KERAS
    if not file.exists():
        return None, f"version {champion.version} has no {MODEL_KERAS}: it was made by an older release"
    from training.userfile import load_model

    try:
        return load_model(file), ""
    except TrainingError as exc:  # of another Keras: from scratch goes on, an error every night would not
        return None, str(exc)


def _columns(job: dict[str, Any]) -> tuple[Any, ...]:
    """What of a job's features and targets is built into its network: names and logarithms, in order."""
    return (
        [(each.get("name"), each.get("floor")) for each in job.get("features", ())],
        [each.get("name") for each in job.get("targets", ())],
    )
