"""labels.json: which version each label of a model names, with a generation that rises at every change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.disk import replace_durably
from models.errors import LabelsDamaged
from models.manifest import Name

LABELS = "labels.json"
STABLE = "stable"
CANDIDATE = "candidate"  # runs in the shadow of stable
PREVIOUS = "previous"  # what was stable before the last promotion: kept and loaded, for a rollback
_MOST = 2**53  # generations; a record keeps them in 64 bits, and JSON's numbers are exact up to here


class Labels(BaseModel):
    """The labels of one model. `generation` is 0 before the first label and rises by one with each change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    generation: Annotated[int, Field(ge=0, le=_MOST)] = 0
    labels: dict[Name, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    def moved(self, label: str, version: int | None) -> Labels:
        """The labels with `label` at `version` (None: without it); the same object if that changes nothing."""
        if self.labels.get(label) == version:
            return self
        rest = {name: number for name, number in self.labels.items() if name != label}
        if version is not None:
            rest[label] = version
        return Labels(generation=self.generation + 1, labels=dict(sorted(rest.items())))

    def promoted(self, version: int) -> Labels:
        """The labels, one generation on, with `version` served and its predecessor kept as `previous`.

        The version is no candidate any more; the same object if it is served already.
        """
        served = self.labels.get(STABLE)
        if served == version:
            return self
        now = {**self.labels, STABLE: version}
        if served is not None:
            now[PREVIOUS] = served
        if now.get(CANDIDATE) == version:
            del now[CANDIDATE]
        return Labels(generation=self.generation + 1, labels=dict(sorted(now.items())))


def read_labels(model: Path) -> Labels:
    """The labels kept in a model's folder; generation 0 where there are none yet. LabelsDamaged for anything else."""
    path = model / LABELS
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Labels()
    try:
        return Labels.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise LabelsDamaged(path, f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from error


def write_labels(model: Path, labels: Labels) -> None:
    """Replaces the labels of a model durably; a reader sees the old or the new ones. Call it under the model's lock."""
    replace_durably(model / LABELS, labels.model_dump_json(indent=2).encode() + b"\n")
