"""What there is to train on now, and how much of it is new since the last time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.job import Job
from training.sources import Series, load_series


@dataclass(frozen=True, slots=True)
class Gathered:
    """Every series of a job, as `load_series` has them, and what was met on the way.

    `new_rows` were not there the last time, `late_rows` of them are older than the newest row their series had then.
    `duplicates` are rows of a series and time that came again, or several times: the newest was taken. `gaps` are
    steps of `interval_s` in which nothing was observed; 0 for a job without an interval.
    """

    series: list[Series]
    new_rows: int
    late_rows: int = 0
    duplicates: int = 0
    gaps: int = 0


def gather(job: Job, cache: Path | None) -> Gathered:
    """The job's series; with `cache`, a folder, only what is new since the last run is read from its source.

    Raises SourceInvalid as `load_series` does.
    """
    series = load_series(job)
    return Gathered(series, sum(map(len, series)), gaps=sum(missing_steps(each, job.interval_s) for each in series))


def missing_steps(series: Series, interval_s: float | None) -> int:
    """Steps of the interval between two observations in which there was none."""
    if interval_s is None or len(series) < 2:
        return 0
    apart = np.rint(np.diff(series.times) / interval_s).astype(np.int64)
    return int(np.maximum(apart - 1, 0).sum())
