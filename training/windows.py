"""The chronological cut of every series into what is learnt from, what stops training and what judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.job import Job
from training.sources import Series

MIN_RESIDUALS = 20  # the fewest residuals a 5 % quantile can be told from


class TooShort(ValueError):
    """Series with too few observations for the job's shares or its horizon; the message says which."""

    @classmethod
    def to_split(cls, series: Series) -> TooShort:
        """For one series that can't be cut in three."""
        return cls(f"series {series.id!r} has {len(series)} observations, too few to split in three")


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts of each series, in the order of the series; put one after the other they are the series."""

    train: list[Series]
    validation: list[Series]
    test: list[Series]


def split(series: Sequence[Series], job: Job) -> Split:
    """Cut each series in time: the last `job.test` (or `job.test_steps`) for judging, before it `job.fit.validation`,
    the rest for training.

    Raises TooShort if a part of any series would have fewer than two observations.
    """
    parts = Split([], [], [])
    for each in series:
        judged = int(len(each) * (1 - job.test)) if job.test_steps is None else len(each) - job.test_steps
        learnt = judged - round(len(each) * job.fit.validation)
        if min(learnt, judged - learnt, len(each) - judged) < 2:
            raise TooShort.to_split(each)
        parts.train.append(each.part(0, learnt))
        parts.validation.append(each.part(learnt, judged))
        parts.test.append(each.part(judged, len(each)))
    return parts


def demand_residuals(parts: Split, horizon: int) -> None:
    """Raises TooShort unless the validation parts hold enough residuals `horizon` steps ahead to bound forecasts by."""
    lengths = [len(part) for part in parts.validation]
    if sum(max(0, n - horizon + 1) for n in lengths) < MIN_RESIDUALS:
        raise TooShort(
            f"too few observations to look {horizon} steps ahead: the validation parts have "
            f"{', '.join(map(str, lengths[:5]))}{', ...' if len(lengths) > 5 else ''} observations, and one of them "
            f"needs {horizon + MIN_RESIDUALS - 1}; give more data, a smaller horizon, or a larger fit.validation"
        )
