"""Every forecast is marked: the next observation is the truth for the last prediction."""

from __future__ import annotations

import numpy as np

from service.core.record import LIVE_SUMS, LiveErrors
from service.core.requests import Live
from service.core.types import FloatArray, ModelSpec

WINDOW = 256  # observations the live errors remember, exponentially weighted
DECAY = 1.0 - 1.0 / WINDOW


def no_errors(targets: int) -> LiveErrors:
    """Live errors of a client that was never scored."""
    return LiveErrors(0, 0.0, np.zeros((targets, LIVE_SUMS)))


def score(
    live: LiveErrors, predicted: FloatArray, bounds: FloatArray | None, observed: FloatArray, naive: FloatArray
) -> LiveErrors:
    """The live errors after one more observation. All arrays (K,) float32, ``bounds`` (K, 2).

    `naive` is the last value seen, the forecast to beat. A target that no feature observes is NaN in `observed`
    and adds nothing.
    """
    error = observed.astype(np.float64) - predicted
    row = np.zeros_like(live.sums)
    row[:, 0] = np.abs(error)
    row[:, 1] = error * error
    row[:, 2] = np.square(observed.astype(np.float64) - naive)
    if bounds is not None:
        row[:, 3] = (bounds[:, 0] <= observed) & (observed <= bounds[:, 1])
    row[np.isnan(row)] = 0.0
    return LiveErrors(live.scored + 1, live.weight * DECAY + 1.0, live.sums * DECAY + row)


def observed_targets(spec: ModelSpec, x: FloatArray) -> FloatArray:
    """The targets' values in observation ``x`` (F,): (K,) float32, NaN for a target that no feature observes."""
    return np.where(spec.observed >= 0, x[spec.observed], np.float32(np.nan)).astype(np.float32)


def summary(spec: ModelSpec, live: LiveErrors) -> tuple[Live, ...]:
    """Live errors as means, one entry per target that some feature observes; empty before the first score."""
    if live.scored == 0:
        return ()
    means = live.sums / live.weight
    return tuple(
        Live(
            target=target.name,
            mae=float(means[k, 0]),
            rmse=float(np.sqrt(means[k, 1])),
            naive_rmse=float(np.sqrt(means[k, 2])),
            coverage=float(means[k, 3]) if spec.level is not None else None,
        )
        for k, target in enumerate(spec.targets)
        if spec.observed[k] >= 0
    )
