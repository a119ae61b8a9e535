"""Which versions stay after a run, and what the next run makes up for when one was killed."""

from __future__ import annotations

from models.errors import BundleDamaged, DeleteRefused, LabelsMoved, UnknownVersion
from models.manifest import read_manifest
from models.repository import Repository
from training.interruption import INTERRUPTION


def clear_old(repository: Repository, name: str, keep: int, replaced: int | None = None) -> list[int]:
    """Delete all but the newest `keep` versions and those that have a label; the ones deleted.

    The version just `replaced` stays as well, for a rollback and for workers that are loading it. A stop leaves the
    rest for the next run, a kill at any moment whole versions.
    """
    deleted = []
    for version in repository.versions(name)[:-keep]:
        if INTERRUPTION.asked:
            break
        if version == replaced or version in repository.labels(name).labels.values():
            continue
        try:
            repository.delete(name, version)
        except (DeleteRefused, UnknownVersion):  # it was given a label meanwhile, or somebody else has deleted it
            continue
        deleted.append(version)
    return deleted


def finish_publishing(repository: Repository, name: str) -> int | None:
    """Give the newest version the label it was to have, if its run was killed before that; the version then.

    Its manifest tells the label and the generation of the labels it was decided under: if no label has moved since,
    its own has not either.
    """
    versions, labels = repository.versions(name), repository.labels(name)
    if not versions or versions[-1] in labels.labels.values():
        return None
    try:
        decision = (read_manifest(repository.bundle(name, versions[-1])).scores or {}).get("decision") or {}
    except (OSError, ValueError):  # damaged: it gets no label
        return None
    if decision.get("label") is None or decision.get("generation") != labels.generation:
        return None
    try:
        repository.set_label(name, decision["label"], versions[-1], labels.generation)
    except (BundleDamaged, LabelsMoved):
        return None
    return versions[-1]
