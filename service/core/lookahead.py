"""Looking ahead: predictions fed back as observations, the state left where it is."""

from __future__ import annotations

import numpy as np

from service.core.errors import InvalidInput
from service.core.gaps import require_feedback
from service.core.ports import Engine
from service.core.types import FloatArray, ModelSpec


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


def fed_back(spec: ModelSpec, y: FloatArray) -> FloatArray:
    """The observation (1, F) that prediction ``y`` (K, W) expects."""
    x: FloatArray = y[spec.feedback, 0][None]
    return x


def check_horizon(spec: ModelSpec, horizon: int, limit: int) -> None:
    """InvalidInput outside 1..`limit`; Unsupported beyond 1 where the model can't be fed its own predictions."""
    if not 1 <= horizon <= limit:
        raise InvalidInput("horizon", f"must be from 1 to {limit}, not {horizon}")
    if horizon > 1:
        require_feedback(spec, "horizon > 1")


def look_ahead(spec: ModelSpec, engine: Engine, state: FloatArray, y: FloatArray, horizon: int) -> FloatArray:
    """Predictions for the next `horizon` steps: (horizon, K, 3) float32: point forecast, lower, upper.

    ``state`` (S,) and ``y`` (K, W) stand after the last observation. Bounds beyond one step come from the
    manifest's per-horizon residual quantiles; NaN where it has none.
    """
    ahead = np.full((horizon, len(spec.targets), 3), np.nan, np.float32)
    ahead[0, :, 0] = y[:, 0]
    first = bounds(spec, y)
    if first is not None:
        ahead[0, :, 1:] = first
    batch = state[None]
    for h in range(1, horizon):
        out, batch = engine.step(fed_back(spec, y), batch)
        y = out[0]
        ahead[h, :, 0] = y[:, 0]
        if spec.residuals is not None and h < len(spec.residuals):
            ahead[h, :, 1:] = y[:, :1] + spec.residuals[h]
    return ahead
