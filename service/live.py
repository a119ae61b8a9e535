"""Live errors of each version, over all clients: as counters that can be summed over workers, and by the minute."""

from __future__ import annotations

from collections import deque

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

    To the minute's sums of the version, if there are any to add to (`minutes`), they are added before those are
    written, as (observations scored, squared error, naive squared error). Errors there are in units of each target's
    scale, so that those of several targets can be added.
    """

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        labels = ["model", "version", "target"]
        self._counters = [Counter(name, said, labels, registry=registry) for name, said in COUNTERS]
        self._waiting: deque[tuple[ModelSpec, tuple[float, ...]]] = deque()
        self._by_time: deque[tuple[float, ModelSpec, tuple[float, ...]]] = deque()
        self._minutes: MinuteSums | None = None
        tally.settles(self.settle)

    def minutes(self, sums: MinuteSums) -> None:
        """Add to these minutes' sums from now on."""
        self._minutes = sums
        sums.gathers.append(self._add_up)

    def witness(self, key: ClientKey, request: PredictRequest, answer: Answer) -> None:
        """See Witness."""
        if answer.marks is not None:
            self._add(answer.spec, answer.marks.sums)

    def witness_many(self, answers: Answers) -> None:
        """See WitnessesMany: their sum is what counts."""
        self._add(answers.spec, tuple(answers.marks.sum(axis=0).tolist()))

    def _add(self, spec: ModelSpec, sums: tuple[float, ...]) -> None:
        self._waiting.append((spec, sums))
        if self._minutes is not None:
            self._by_time.append((self._minutes.clock(), spec, sums))

    def settle(self) -> None:
        """Add up what waits."""
        totals: dict[int, list[float]] = {}
        specs: dict[int, ModelSpec] = {}
        for spec, sums in drained(self._waiting):
            specs[id(spec)] = spec
            total = totals.setdefault(id(spec), [0.0] * len(sums))
            for i, amount in enumerate(sums):
                total[i] += amount
        for known, spec in specs.items():
            self._count(spec, totals[known])

    def _add_up(self) -> None:
        """Hand over to the minutes what waits for them."""
        if self._minutes is None:
            return
        for moment, spec, sums in drained(self._by_time):
            scored = squared = naive_squared = 0.0
            at = 0
            for target in spec.targets:
                square = max(target.scale * target.scale, _LEAST)
                scored += sums[at]
                squared += sums[at + 2] / square
                naive_squared += sums[at + 3] / square
                at += MARKS
            values = scored, squared, naive_squared
            self._minutes.add_at(moment, spec.name, f"{SERIES}{spec.version}", values)

    def _count(self, spec: ModelSpec, total: list[float]) -> None:
        for k, target in enumerate(spec.targets):
            marks = total[k * MARKS : (k + 1) * MARKS]
            if spec.observed[k] < 0:
                continue
            for counter, amount in zip(self._counters, marks, strict=True):
                counter.labels(spec.name, spec.version, target.name).inc(amount)
