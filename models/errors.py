"""How the model repository refuses: errors built from data, each saying what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class RepositoryError(Exception):
    """Base of every refusal of the model repository."""


class UnknownModel(RepositoryError):
    def __init__(self, name: str, root: Path, known: Iterable[str]) -> None:
        self.name = name
        there = ", ".join(known) or "none"
        super().__init__(f"no version of model {name!r} in {root} (published: {there}); train or export it first")


class UnknownVersion(RepositoryError):
    def __init__(self, name: str, version: int, known: Sequence[int]) -> None:
        self.name, self.version = name, version
        there = ", ".join(map(str, known)) or "none"
        super().__init__(f"model {name!r} has no version {version}; choose one of: {there}")


class UnknownLabel(RepositoryError):
    def __init__(self, name: str, label: str, known: Iterable[str]) -> None:
        self.name, self.label = name, label
        there = ", ".join(known) or "none"
        super().__init__(f"model {name!r} has no label {label!r} (labels: {there}); publish a version or set the label")


class InvalidName(RepositoryError):
    def __init__(self, what: str, name: str) -> None:
        super().__init__(
            f"{name!r} can't name a {what}: use 1 to 64 lower-case letters, digits, '-' and '_', "
            "the first a letter or a digit"
        )


class LabelsDamaged(RepositoryError):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        super().__init__(f"{path} does not hold labels ({why}); restore it, keeping `generation` above its last value")


class LabelsMoved(RepositoryError):
    """Whoever wanted to move a label decided on labels that are not those of now; nothing changed."""

    def __init__(self, name: str, expected: int, generation: int) -> None:
        self.name, self.expected, self.generation = name, expected, generation
        super().__init__(
            f"the labels of model {name!r} are of generation {generation}, not {expected}; look at them again"
        )


class BundleDamaged(RepositoryError):
    """`problems` names every file that is wrong, and how."""

    def __init__(self, name: str, version: int, problems: Sequence[str]) -> None:
        self.name, self.version, self.problems = name, version, tuple(problems)
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        super().__init__(
            f"version {version} of model {name!r} is not what was published: {shown}. "
            "Restore the folder from a copy, or publish the model again and move the label"
        )


class PublishRefused(RepositoryError):
    def __init__(self, name: str, why: str) -> None:
        self.name = name
        super().__init__(f"model {name!r} is not published: {why}")


class DeleteRefused(RepositoryError):
    def __init__(self, name: str, what: str, why: str) -> None:
        super().__init__(f"{what} of model {name!r} stays: {why}")


class RepositoryBusy(RepositoryError):
    def __init__(self, lock: Path, wait_s: float) -> None:
        super().__init__(f"{lock} was held by another process for {wait_s:g} s; try again, or see who holds it (fuser)")
