"""Every forecast is marked: the next observation is the truth for the last prediction."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from service.core.record import LIVE_SUMS, LiveErrors
from service.core.requests import Live
from service.core.types import FloatArray, ModelSpec

WINDOW = 256  # observations the live errors remember, exponentially weighted
DECAY = 1.0 - 1.0 / WINDOW


def no_errors(targets: int) -> LiveErrors:
    """Live errors of a client that was never scored."""
    return LiveErrors(0, 0.0, (0.0,) * (targets * LIVE_SUMS))


class Told(NamedTuple):
    """What the client was told of its next observation: ``point`` (K,), ``interval`` (K, 2) or None."""

    point: FloatArray
    interval: FloatArray | None


def score(live: LiveErrors, spec: ModelSpec, told: Told, x: FloatArray, naive: FloatArray) -> LiveErrors:
    """The live errors after observation ``x`` (F,) is held against what was told.

    ``naive`` (F,) is the observation before it, the forecast to beat. A target that no feature observes adds
    nothing. Plain numbers: for a handful of targets they are ten times as fast as small arrays.
    """
    sums = [DECAY * total for total in live.sums]
    seen, before = x.tolist(), naive.tolist()
    interval = None if told.interval is None else told.interval.tolist()
    for k, (feature, predicted) in enumerate(zip(spec.observed, told.point.tolist(), strict=True)):
        if feature < 0:
            continue
        error, step = seen[feature] - predicted, seen[feature] - before[feature]
        at = k * LIVE_SUMS
        sums[at] += abs(error)
        sums[at + 1] += error * error
        sums[at + 2] += step * step
        if interval is not None:
            sums[at + 3] += interval[k][0] <= seen[feature] <= interval[k][1]
    return LiveErrors(live.scored + 1, live.weight * DECAY + 1.0, tuple(sums))


def observed_targets(spec: ModelSpec, x: FloatArray) -> FloatArray:
    """The targets' values in observation ``x`` (F,): (K,) float32, NaN for a target that no feature observes."""
    seen = x.tolist()
    return np.array([seen[feature] if feature >= 0 else math.nan for feature in spec.observed], np.float32)


def summary(spec: ModelSpec, live: LiveErrors) -> tuple[Live, ...]:
    """Live errors as means, one entry per target that some feature observes; empty before the first score."""
    if live.scored == 0:
        return ()
    means = [total / live.weight for total in live.sums]
    return tuple(
        Live(
            target=target.name,
            mae=means[k * LIVE_SUMS],
            rmse=math.sqrt(means[k * LIVE_SUMS + 1]),
            naive_rmse=math.sqrt(means[k * LIVE_SUMS + 2]),
            coverage=means[k * LIVE_SUMS + 3] if spec.level is not None else None,
        )
        for k, target in enumerate(spec.targets)
        if spec.observed[k] >= 0
    )
