"""Looking ahead: predictions fed back as observations, the state left where it is."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import numpy as np

from service.core.errors import InvalidInput
from service.core.gaps import require_feedback
from service.core.ports import Engine
from service.core.types import FloatArray, ModelSpec

LIMITLESS = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


def bounds(spec: ModelSpec, y: FloatArray) -> FloatArray | None:
    """The interval at the spec's level around one-step predictions ``y`` (..., K, W): (..., K, 2) float32.

    From y's own quantiles, else from the hold-out residuals, else None.
    """
    if spec.interval_columns is not None and y.shape[-1] == spec.columns:
        lower, upper = spec.interval_columns
        return y[..., lower : upper + 1 : upper - lower]  # a view: picking columns by index copies, and is slow
    if spec.residuals is not None:
        interval: FloatArray = y[..., :1] + spec.residuals[0]
        return interval
    return None


def stretched(spec: ModelSpec, y: FloatArray, own: FloatArray, stretch: tuple[float, ...]) -> FloatArray:
    """``own`` (K, 2), the bounds around prediction ``y`` (K, W), each exp(stretch[k]) times as far from the point.

    An interval within another at one factor is so at each: they are nested, whatever the model says (a point outside
    its own bounds counts as the nearer of them). It is not widened beyond a feature's limits, which no observation
    may leave.
    """
    if not any(stretch):
        return own
    ends = stretched_ends(spec, y[:, 0].tolist(), own[:, 0].tolist(), own[:, 1].tolist(), stretch)
    return np.array(ends, np.float32).reshape(-1, 2)


def stretched_ends(
    spec: ModelSpec,
    points: Sequence[float],
    lowers: Sequence[float],
    uppers: Sequence[float],
    stretch: tuple[float, ...],
) -> list[float]:
    """`stretched` over plain numbers: for a handful of targets they are several times as fast as small arrays.

    `points`, `lowers`, `uppers`: K numbers each; the answer: lower and upper end of each in turn.
    """
    ends: list[float] = []
    limits = spec.limits or (LIMITLESS,) * len(stretch)
    for point, lower, upper, log, (least, most) in zip(points, lowers, uppers, stretch, limits, strict=True):
        factor = exp(log)
        middle = lower if point < lower else upper if point > upper else point
        low, high = middle - factor * (middle - lower), middle + factor * (upper - middle)
        ends += (low if low > least else min(least, lower), high if high < most else max(most, upper))
    return ends


def fed_back(spec: ModelSpec, y: FloatArray) -> FloatArray:
    """The observation (1, F) that prediction ``y`` (K, W) expects."""
    x: FloatArray = y[spec.feedback, 0][None]
    return x


def _expected(spec: ModelSpec, y: FloatArray, known: FloatArray) -> FloatArray:
    """The observation (1, F) that is ``known`` (F,), and where that is NaN what prediction ``y`` (K, W) expects."""
    x, places = known.copy(), {target.name: k for k, target in enumerate(spec.targets)}
    for column, feature in enumerate(spec.features):
        if x[column] != x[column]:
            x[column] = y[places[feature.name], 0]
    return x[None]


def check_horizon(spec: ModelSpec, horizon: int, limit: int, *, known: bool = False) -> None:
    """InvalidInput outside 1..`limit`; Unsupported beyond 1 where the model can't be fed its own predictions, unless
    the future is `known`."""
    if not 1 <= horizon <= limit:
        raise InvalidInput("horizon", f"must be from 1 to {limit}, not {horizon}")
    if horizon > 1 and not known:
        require_feedback(spec, "horizon > 1")


def look_ahead(
    spec: ModelSpec,
    engine: Engine,
    state: FloatArray,
    y: FloatArray,
    horizon: int,
    stretch: tuple[float, ...] = (),
    future: FloatArray | None = None,
) -> FloatArray:
    """Predictions for the next `horizon` steps: (horizon, K, 3) float32: point forecast, lower, upper.

    ``state`` (S,) and ``y`` (K, W) stand after the last observation. Bounds beyond one step come from the
    manifest's per-horizon residual quantiles; NaN where it has none. All are `stretched` alike. ``future``: see
    `Supposed`.
    """
    ahead = np.full((horizon, len(spec.targets), 3), np.nan, np.float32)
    ahead[0, :, 0] = y[:, 0]
    first = bounds(spec, y)
    if first is not None:
        ahead[0, :, 1:] = stretched(spec, y, first, stretch)
    batch = state[None]
    for h in range(1, horizon):
        x = fed_back(spec, y) if future is None else _expected(spec, y, future[h - 1])
        out, batch = engine.step(x, batch)
        y = out[0]
        ahead[h, :, 0] = y[:, 0]
        if spec.residuals is not None and h < len(spec.residuals):
            ahead[h, :, 1:] = stretched(spec, y, y[:, :1] + spec.residuals[h], stretch)
    return ahead
