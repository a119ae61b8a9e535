"""A trial: a candidate against what is served, from its first minute to its verdict, and what is kept of it.

A trial is a value: each look makes the next one from it, the minutes that have closed since and the time. Whoever
holds the judge's lease next goes on from what was kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from service.core.betting import Standing, standing
from service.core.minutes import Minute

Verdict = Literal["better", "worse", "undecided"]

LEAST_STEPS = 4  # of an observation: minutes with fewer are merged with the next
COARSER_EVERY = 10_000  # observations: from then on each takes twice the minutes, so that no trial outgrows its file


class Observation(NamedTuple):
    """Some minutes' paired differences. `start` of the first, epoch seconds."""

    start: float
    minutes: int
    steps: int
    sum: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known so far. Times are epoch seconds.

    `version` runs in the shadow of version `against`. `through` is the start of the last minute that counts. An
    observation at the end with too few steps or minutes waits for more. `generation` is that of the labels at the
    last look, on which the verdict was given. `earlier` sums up former trials of the version.
    """

    model: str
    version: int
    fingerprint: str
    against: int
    against_fingerprint: str
    began: float
    level: float
    deadline: float
    minute_s: float
    through: float
    observations: tuple[Observation, ...] = ()
    verdict: Verdict | None = None
    decided: float | None = None
    generation: int | None = None
    earlier: tuple[Mapping[str, Any], ...] = ()

    @property
    def series(self) -> str:
        """The minute sums that count for it."""
        return series_of(self.fingerprint)

    @property
    def steps(self) -> int:
        """Steps compared so far."""
        return sum(each.steps for each in self.observations)

    def is_of(self, version: int, fingerprint: str, against_fingerprint: str) -> bool:
        """Whether it is about these weights in the shadow of those."""
        mine = self.version, self.fingerprint, self.against_fingerprint
        return mine == (version, fingerprint, against_fingerprint)

    def with_minutes(self, minutes: Sequence[Minute]) -> Trial:
        """The trial with more closed minutes, rising; those it knows, and those before it began, count no more."""
        found, through = list(self.observations), self.through
        for start, values in minutes:
            if start <= through:
                continue
            through = start
            steps, total = values if len(values) == 2 else (0.0, 0.0)
            if steps < 1 or abs(total) > steps * (1 + 1e-9):  # no sum of clipped differences
                continue
            if found and not _is_whole(len(found) - 1, found[-1]):
                last = found.pop()
                found.append(Observation(last.start, last.minutes + 1, last.steps + int(steps), last.sum + total))
            else:
                found.append(Observation(start, 1, int(steps), total))
        return replace(self, observations=tuple(found), through=through)

    def standing(self) -> Standing:
        """What its observations say, without one at the end that still waits for more."""
        told = [each for i, each in enumerate(self.observations) if _is_whole(i, each)]
        means = np.array([each.sum / each.steps for each in told], np.float64)
        return standing(np.clip(means, -1.0, 1.0), self.level)

    def judged(self, said: Standing, now: float, generation: int) -> Trial:
        """The trial after a look at it, with its verdict if there is one now; `said` is its `standing()`."""
        verdict: Verdict | None = None
        if said.is_better:
            verdict = "better"
        elif said.is_worse:
            verdict = "worse"
        elif now >= self.deadline:
            verdict = "undecided"
        decided = None if verdict is None else now
        return replace(self, verdict=verdict, decided=decided, generation=generation)

    def as_dict(self, said: Standing) -> dict[str, Any]:
        """What is kept, as plain JSON: the trial, and what it says, for people. `said` is its `standing()`."""
        summary = {
            "steps": self.steps,
            "minutes": sum(each.minutes for each in self.observations),
            "mean": _last(said.mean),
            "interval": None if not len(said.mean) else [_last(said.lower), _last(said.upper)],
            "wealth": {"better": wealth(said.better), "worse": wealth(said.worse)},
            "independent_share": _last(said.share),
            "log10_wealth": {
                "better": np.round(said.better / math.log(10), 4).tolist(),
                "worse": np.round(said.worse / math.log(10), 4).tolist(),
            },
        }
        kept = {name: getattr(self, name) for name in Trial.__dataclass_fields__}
        kept["observations"] = [list(each) for each in self.observations]
        return {**kept, **summary, "earlier": list(self.earlier)}


def _is_whole(index: int, observation: Observation) -> bool:
    """Whether the trial's observation of that index takes no more minutes; known before they come."""
    return observation.steps >= LEAST_STEPS and observation.minutes >= 1 << (index // COARSER_EVERY)


def trial_of(kept: Mapping[str, Any] | None) -> Trial | None:
    """The trial that `as_dict` told; None for anything else."""
    if kept is None:
        return None
    try:
        fields = {name: kept[name] for name in Trial.__dataclass_fields__}
        fields["observations"] = tuple(
            Observation(float(start), int(minutes), int(steps), float(total))
            for start, minutes, steps, total in kept["observations"]
        )
        fields["earlier"] = tuple(kept["earlier"])
        trial = Trial(**fields)
        math.fsum((trial.began, trial.level, trial.deadline, trial.minute_s, trial.through))  # they are numbers
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return trial


def summary_of(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered of a former trial: all but its series and the trials before it."""
    long = ("observations", "log10_wealth", "earlier", "format")
    return {name: value for name, value in kept.items() if name not in long}


def series_of(fingerprint: str) -> str:
    """The minute sums of a candidate with these weights: steps, and the sum of their paired differences."""
    return f"shadow:{fingerprint[:16]}"


def wealth(log_wealth: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The wealth at the end of the series, 1 before its first observation."""
    return math.exp(min(float(log_wealth[-1]), 700.0)) if len(log_wealth) else 1.0


def _last(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    return round(float(values[-1]), 6) if len(values) else None
