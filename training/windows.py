"""The chronological cut of every series into what is learnt from, what stops training and what judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.job import Job
from training.sources import Series


class TooShort(ValueError):
    """A series with too few observations for the job's shares."""

    def __init__(self, series: Series) -> None:
        super().__init__(f"series {series.id!r} has {len(series)} observations, too few to split in three")


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts of each series, in the order of the series; put one after the other they are the series."""

    train: list[Series]
    validation: list[Series]
    test: list[Series]


def split(series: Sequence[Series], job: Job) -> Split:
    """Cut each series in time: the last `job.test` for judging, before it `job.fit.validation`, the rest for training.

    Raises TooShort if a part of any series would have fewer than two observations.
    """
    parts = Split([], [], [])
    for each in series:
        judged = int(len(each) * (1 - job.test))
        learnt = judged - round(len(each) * job.fit.validation)
        if min(learnt, judged - learnt, len(each) - judged) < 2:
            raise TooShort(each)
        parts.train.append(each.part(0, learnt))
        parts.validation.append(each.part(learnt, judged))
        parts.test.append(each.part(judged, len(each)))
    return parts
