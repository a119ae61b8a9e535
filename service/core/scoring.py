"""Every forecast is marked: the next observation is the truth for the last prediction."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from service.core.record import LIVE_SUMS, LiveErrors
from service.core.requests import MARKS, Live, Marks
from service.core.types import FloatArray, ModelSpec

WINDOW = 256  # observations the live errors remember, exponentially weighted
DECAY = 1.0 - 1.0 / WINDOW
STRETCH = 0.05  # how far an interval's width moves at one observation, in the logarithm, times missed - its share
STRETCH_MOST = math.log(100.0)  # an interval is at most 100 times as wide as the model's own, or as narrow
ANOMALY_AFTER = 20  # scored observations, until there is something to compare an error with
_LEAST_ERROR = 1e-6  # of `scale`: what a client that was never wrong is taken to err
_MOST_ANOMALY = 1e9


def no_errors(targets: int) -> LiveErrors:
    """Live errors of a client that was never scored."""
    return LiveErrors(0, 0.0, (0.0,) * (targets * LIVE_SUMS))


class Told(NamedTuple):
    """What the client was told of its next observation: ``point`` (K,), ``interval`` (K, 2) or None.

    `own`: by the version that steps it now; another's errors say nothing of this one.
    """

    point: FloatArray
    interval: FloatArray | None
    own: bool = True


class Scored(NamedTuple):
    """What an observation's mark comes to: the live errors after it, what it adds to its version's, (K, MARKS) in turn,
    and for each target whether it was outside its interval, None without one."""

    live: LiveErrors
    marks: list[float]
    missed: list[bool | None]


def score(live: LiveErrors, spec: ModelSpec, told: Told, x: FloatArray, naive: FloatArray) -> Scored:
    """Observation ``x`` (F,) held against what was told.

    ``naive`` (F,) is the observation before it, the forecast to beat. A target that no feature observes adds
    nothing. Plain numbers: for a handful of targets they are ten times as fast as small arrays.
    """
    sums = [DECAY * total for total in live.sums]
    marks: list[float] = [0.0] * (len(spec.targets) * MARKS)
    missed: list[bool | None] = [None] * len(spec.targets)
    seen, before = x.tolist(), naive.tolist()
    interval = None if told.interval is None else told.interval.tolist()
    for k, (feature, predicted) in enumerate(zip(spec.observed.tolist(), told.point.tolist(), strict=True)):
        if feature < 0:
            continue
        value = seen[feature]
        error, step = value - predicted, value - before[feature]
        absolute, squared, naive_squared = abs(error), error * error, step * step
        at = k * LIVE_SUMS
        sums[at] += absolute
        sums[at + 1] += squared
        sums[at + 2] += naive_squared
        covered = bounded = 0.0
        if interval is not None:
            lower, upper = interval[k]
            bounded = 1.0
            if lower <= value <= upper:
                covered, missed[k] = 1.0, False
                sums[at + 3] += 1.0
            else:
                missed[k] = True
        at = k * MARKS
        marks[at : at + MARKS] = 1.0, absolute, squared, naive_squared, covered, bounded
    return Scored(LiveErrors(live.scored + 1, live.weight * DECAY + 1.0, tuple(sums)), marks, missed)


def restretched(stretch: tuple[float, ...], missed: list[bool | None], level: float) -> tuple[float, ...]:
    """How wide the intervals are to be after some were `missed`: a little narrower after each hit, by as much more
    wider after a miss as a miss is rarer at `level`.

    Adaptive conformal inference (Gibbs & Candès 2021), its alpha moved to where it counts: the interval's nested
    family is over the logarithm of its width, tracked as a quantile (Angelopoulos, Candès & Tibshirani 2023). Over any
    n observations the share of misses is within (d + STRETCH) / (STRETCH n) of 1 - level, d the distance that the
    logarithm went, whatever the errors' distribution does and as long as STRETCH_MOST is not reached.
    """
    alpha = 1.0 - level
    return tuple(
        log if miss is None else min(max(log + STRETCH * (miss - alpha), -STRETCH_MOST), STRETCH_MOST)
        for log, miss in zip(stretch, missed, strict=True)
    )


def anomaly(live: LiveErrors, spec: ModelSpec, told: Told, x: FloatArray) -> FloatArray | None:
    """How unlike the client's errors so far the error at observation ``x`` (F,) is: |error| / RMSE, (K,) float32.

    `live` is from before it. None before ANOMALY_AFTER scored observations; NaN for a target that no feature observes.
    """
    if live.scored < ANOMALY_AFTER:
        return None
    seen, scores = x.tolist(), []
    for k, (feature, predicted) in enumerate(zip(spec.observed.tolist(), told.point.tolist(), strict=True)):
        usual = max(math.sqrt(live.sums[k * LIVE_SUMS + 1] / live.weight), _LEAST_ERROR * spec.targets[k].scale)
        error = abs(seen[feature] - predicted)
        scores.append(math.nan if feature < 0 else min(error / usual, _MOST_ANOMALY))
    return np.array(scores, np.float32)


def marks_of(sums: list[float] | None) -> Marks | None:
    """What was summed up over a request, for whoever counts it."""
    return None if sums is None else Marks(tuple(sums))


def observed_targets(spec: ModelSpec, x: FloatArray) -> FloatArray:
    """The targets' values in observation ``x`` (F,): (K,) float32, NaN for a target that no feature observes."""
    seen = x.tolist()
    return np.array([seen[feature] if feature >= 0 else math.nan for feature in spec.observed], np.float32)


def summary(spec: ModelSpec, live: LiveErrors, stretch: tuple[float, ...]) -> tuple[Live, ...]:
    """Live errors as means, one entry per target that some feature observes; empty before the first score."""
    if live.scored == 0:
        return ()
    means = [total / live.weight for total in live.sums]
    found = []
    for k, target in enumerate(spec.targets):
        if spec.observed[k] < 0:
            continue
        mae, squared, naive_squared, covered = means[k * LIVE_SUMS : (k + 1) * LIVE_SUMS]
        rmse, naive_rmse, bounded = math.sqrt(squared), math.sqrt(naive_squared), spec.level is not None
        found.append(
            Live(
                target=target.name,
                mae=mae,
                rmse=rmse,
                naive_rmse=naive_rmse,
                skill=1.0 - rmse / naive_rmse if naive_rmse > 0.0 else None,
                coverage=covered if bounded else None,
                factor=(math.exp(stretch[k]) if stretch else 1.0) if bounded else None,
            )
        )
    return tuple(found)
