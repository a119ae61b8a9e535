"""Every forecast is marked: the next observation is the truth for the last prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from math import sqrt
from typing import NamedTuple

import numpy as np

from service.core.record import LIVE_SUMS, LiveErrors
from service.core.requests import MARKS, Live, Marks
from service.core.types import FloatArray, ModelSpec, of_tuple

WINDOW = 256  # observations the live errors remember, exponentially weighted
DECAY = 1.0 - 1.0 / WINDOW
STRETCH = 0.05  # how far an interval's width moves at one observation, in the logarithm, times missed - its share
STRETCH_MOST = math.log(100.0)  # an interval is at most 100 times as wide as the model's own, or as narrow
ANOMALY_AFTER = 20  # scored observations, until there is something to compare an error with
MOST_ANOMALY = 1e9
_UNMARKED = (0.0,) * MARKS
_STRETCH_LEAST = -STRETCH_MOST
_NO_STRETCH = repeat(0.0)
_NO_ENDS: tuple[Iterable[float], Iterable[float], float] = repeat(0.0), repeat(0.0), 0.0  # lower, upper, whether any


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

    def plain(self) -> tuple[list[float], list[float] | None]:
        """The points, and the ends of the intervals in turn, as `score` takes them."""
        return self.point.tolist(), None if self.interval is None else self.interval.ravel().tolist()


class Scored(NamedTuple):
    """What an observation's mark comes to.

    The live errors after it; what it adds to its version's, MARKS numbers for each target in turn; the stretches after
    it, where there were any; its anomaly scores, one for each target, None before ANOMALY_AFTER scored observations.
    """

    live: LiveErrors
    marks: list[float]
    stretch: tuple[float, ...] | None
    anomaly: list[float] | None


_scored = of_tuple(Scored)


def score(
    live: LiveErrors,
    spec: ModelSpec,
    points: Sequence[float],
    ends: Sequence[float] | None,
    seen: Sequence[float],
    before: Sequence[float],
    stretch: tuple[float, ...] | None = None,
) -> Scored:
    """Observation `seen` (F numbers) held against what was told of it; `before` is the one before it, the forecast to
    beat.

    `points`: the K point forecasts; `ends`: lower and upper bound of each in turn, None without. A target that no
    feature observes adds nothing, and its anomaly is NaN; another's is |error| / RMSE of the client's errors before
    this one. What is summed up is an error of MOST_ERROR at most, and so for the naive one.

    `stretch` (see Track) follows the client's misses: a little narrower after each hit, by as much more wider after a
    miss as a miss is rarer. It is adaptive conformal inference (Gibbs & Candès 2021), its alpha moved to where it
    counts: the nested family of intervals is over the logarithm of their width, tracked as a quantile (Angelopoulos,
    Candès & Tibshirani 2023). Over any n observations the share of misses is within (d + STRETCH) / (STRETCH n) of
    1 - level, d the way that the logarithm went, whatever the errors do, as long as it stays within STRETCH_MOST.

    One loop over plain numbers: for a handful of targets that is ten times as fast as small arrays. Of `live.sums` each
    target takes the next four.
    """
    weight, old, known = live.weight, iter(live.sums), live.scored >= ANOMALY_AFTER
    sums: list[float] = []
    marks: list[float] = []
    anomaly: list[float] = []
    adapted: list[float] = []
    alpha = 1.0 - (spec.level or 0.0)
    hit, miss = STRETCH * (0.0 - alpha), STRETCH * (1.0 - alpha)
    lowers, uppers, bounded = _NO_ENDS if ends is None else (ends[::2], ends[1::2], 1.0)
    adapts = bounded and stretch is not None and spec.level is not None
    each = zip(spec.marked, points, lowers, uppers, stretch or _NO_STRETCH, old, old, old, old, strict=False)
    for (feature, most, least), predicted, lower, upper, log, was_absolute, was_squared, was_naive, was_covered in each:
        if feature < 0:
            marks += _UNMARKED
            anomaly.append(math.nan)
            adapted.append(log)
            sums += (DECAY * was_absolute, DECAY * was_squared, DECAY * was_naive, DECAY * was_covered)
            continue
        value = seen[feature]
        absolute, step = abs(value - predicted), abs(value - before[feature])
        if known:
            usual = sqrt(was_squared / weight)
            ratio = absolute / (usual if usual > least else least)
            anomaly.append(ratio if ratio < MOST_ANOMALY else MOST_ANOMALY)
        if not absolute < most:
            absolute = most
        if not step < most:
            step = most
        covered = 1.0 if bounded and lower <= value <= upper else 0.0
        if adapts:
            log += hit if covered else miss
            adapted.append(log if _STRETCH_LEAST < log < STRETCH_MOST else math.copysign(STRETCH_MOST, log))
        squared, naive_squared = absolute * absolute, step * step
        sums += (
            DECAY * was_absolute + absolute, DECAY * was_squared + squared,
            DECAY * was_naive + naive_squared, DECAY * was_covered + covered,
        )  # fmt: skip
        marks += (1.0, absolute, squared, naive_squared, covered, bounded)
    after = LiveErrors(live.scored + 1, weight * DECAY + 1.0, tuple(sums))
    return _scored((after, marks, tuple(adapted) if adapts else stretch, anomaly if known else None))


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
