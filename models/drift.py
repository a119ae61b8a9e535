"""drift.json: the last change in a model's live errors that was noticed, for whoever retrains it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.disk import replace_durably

DRIFT = "drift.json"


class Drift(BaseModel):
    """A change in live errors. `at`: epoch seconds of the minute in which it shows; `before` and `after`: the mean
    error on either side, as a share of the naive one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    at: Annotated[float, Field(ge=0)]
    version: Annotated[int, Field(ge=1)]
    before: float
    after: float


def report_drift(model: Path, drift: Drift) -> None:
    """Replace what was noticed of the model in this folder, durably. OSError where the repository can't be written."""
    replace_durably(model / DRIFT, drift.model_dump_json(indent=2).encode() + b"\n")


def read_drift(model: Path) -> Drift | None:
    """What was last noticed of the model in this folder; None if nothing was, or nothing that reads."""
    try:
        return Drift.model_validate_json((model / DRIFT).read_bytes())
    except (OSError, ValidationError):
        return None
