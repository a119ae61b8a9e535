"""Live errors of each version, over all clients: as counters that can be summed over workers, and by the minute."""

from __future__ import annotations

import math
import threading
from collections import deque

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from service.core.many.answers import Answers
from service.core.requests import MARKS, Answer, PredictRequest
from service.core.types import ClientKey, ModelSpec
from service.minutes import MinuteSums
from service.tally import Tally, drained

COUNTERS = (  # in the order of `Marks.sums`
    ("recurve_live_scored", "Predictions held against what was then observed."),
    ("recurve_live_absolute_error", "Sum of their absolute errors."),
    ("recurve_live_squared_error", "Sum of their squared errors."),
    ("recurve_live_naive_squared_error", "Sum of the squared errors of the last value in their place."),
    ("recurve_live_covered", "Of those with an interval, those whose observation lay in it."),
    ("recurve_live_bounded", "Predictions held against an observation that had an interval."),
)
SERIES = "live:"  # followed by the version: the minute sums' name
_LEAST = 1e-120  # of what is divided by: a scale whose square is no number above zero


class LiveErrorSums:
    """A witness of predicts. Marks wait until the tally settles, to be added to the counters.

    To the minute's sums of the version, if there are any to add to (`minutes`), they are added then, and before those
    are written, as (observations scored, squared error, naive squared error). Errors there are in units of each
    target's scale, so that those of several targets can be added.
    """

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        labels = ["model", "version", "target"]
        self._counters = [Counter(name, said, labels, registry=registry) for name, said in COUNTERS]
        self._waiting: deque[tuple[float, ModelSpec, tuple[float, ...]]] = deque()
        self._minutes: MinuteSums | None = None
        self._settling = threading.Lock()  # the minutes' thread settles as well as the tally's
        tally.settles(self.settle)

    def minutes(self, sums: MinuteSums) -> None:
        """Add to these minutes' sums from now on."""
        self._minutes = sums
        sums.gathers.append(self.settle)

    def witness(self, key: ClientKey, request: PredictRequest, answer: Answer) -> None:
        """See Witness."""
        if answer.marks is not None:
            self._add(answer.spec, answer.marks.sums)

    def witness_many(self, answers: Answers) -> None:
        """See WitnessesMany: their sum is what counts."""
        self._add(answers.spec, tuple(answers.marks.sum(axis=0).tolist()))

    def _add(self, spec: ModelSpec, sums: tuple[float, ...]) -> None:
        self._waiting.append((0.0 if self._minutes is None else self._minutes.clock(), spec, sums))

    def settle(self) -> None:
        """Add up what waits, a version's marks of a minute at once: beside requests there is little time for it."""
        with self._settling:
            self._settle()

    def _settle(self) -> None:
        groups: dict[tuple[int, int], tuple[float, ModelSpec, list[tuple[float, ...]]]] = {}
        minute_s = math.inf if self._minutes is None else self._minutes.minute_s
        for moment, spec, sums in drained(self._waiting):
            group = groups.setdefault((id(spec), math.floor(moment / minute_s)), (moment, spec, []))
            group[2].append(sums)
        for moment, spec, rows in groups.values():
            total = np.array(rows).sum(axis=0).reshape(-1, MARKS)
            self._count(spec, total.tolist())
            if self._minutes is not None:
                squares = [max(target.scale * target.scale, _LEAST) for target in spec.targets]
                scaled = (total[:, 2:4] / np.array(squares)[:, None]).sum(axis=0)
                values = float(total[:, 0].sum()), *scaled.tolist()
                self._minutes.add_at(moment, spec.name, f"{SERIES}{spec.version}", values)

    def _count(self, spec: ModelSpec, total: list[list[float]]) -> None:
        for k, target in enumerate(spec.targets):
            if spec.observed[k] < 0:
                continue
            for counter, amount in zip(self._counters, total[k], strict=True):
                counter.labels(spec.name, spec.version, target.name).inc(amount)
