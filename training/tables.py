"""What every table of a job file has in common, and those about training again: how, and when."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Level = Annotated[float, Field(gt=0, lt=1)]


class Table(BaseModel):
    """Settings shared by every table of a job: frozen, and no key beyond those named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Retrain(Table):
    """How a job is trained again (`python -m training retrain`). Lengths are in steps: observations of each series.

    `start`: from the champion's weights and preprocessing (`warm`), or from nothing. `fit` replaces keys of the job's
    fit. `window`: all there is (`expanding`), or the newest `length` steps before the holdout (`sliding`). `holdout`:
    the newest steps, which no fit sees; candidate and champion are compared on those of them that are newer than what
    the champion has learnt from. `publish`: the label of a candidate that is better, at `level` (0.05). `keep`: so many
    of the newest versions stay, and all that have a label. `minimum_new`: with fewer new observations, nothing is done.
    While a candidate is on trial nothing is done either, unless `replace`. The service that tries it takes `level` and
    `deadline_hours` from here as well; its own settings where they are None.
    """

    start: Literal["warm", "scratch"] = "warm"
    fit: dict[str, Any] = Field(default_factory=dict)
    window: Literal["sliding", "expanding"] = "expanding"
    length: int | None = Field(default=None, ge=50)
    holdout: int = Field(default=168, ge=20)
    publish: Literal["candidate", "stable"] = "candidate"
    level: Annotated[float, Field(gt=0, le=0.5)] | None = None
    deadline_hours: Annotated[float, Field(gt=0, lt=1e6)] | None = None
    keep: int = Field(default=5, ge=1)
    minimum_new: int = Field(default=1, ge=1)
    replace: bool = False

    @model_validator(mode="after")
    def _length_goes_with_sliding(self) -> Self:
        if self.window == "sliding" and self.length is None:
            raise ValueError("length: a sliding window needs one, in steps")
        if self.window == "expanding" and self.length is not None:
            raise ValueError("length: an expanding window has none; leave it out, or say window = 'sliding'")
        return self


class Schedule(Table):
    """When a job is trained again (`python -m training schedule`).

    `cron`: minute, hour, day of month, month, day of week (0 and 7 are Sunday), all of which have to fit, by the clock
    of `timezone`. `jitter_s`: up to so much later, by chance, so that many jobs don't begin at once. `misfire_grace_s`:
    a run that could not begin on time still does, once, if it is not later than this. `on_drift`: also when the
    service notes a change in live errors, at most once in `cool_down_s`.
    """

    cron: str
    timezone: str = "UTC"
    jitter_s: int = Field(default=0, ge=0)
    misfire_grace_s: int = Field(default=3600, ge=1)
    on_drift: bool = False
    cool_down_s: float = Field(default=21_600, ge=0)

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, LookupError) as exc:
            raise ValueError(f"{value!r} is not a time zone; give one such as 'Europe/Berlin'") from exc
        return value

    @model_validator(mode="after")
    def _is_cron(self) -> Self:
        from training.cron import trigger_of  # not for every job: the scheduler's library comes with it

        try:
            trigger_of(self)
        except ValueError as exc:
            raise ValueError(f"cron: {self.cron!r} can't be used: {exc}") from exc
        return self
