"""What is wrong with a request whatever the client's record says."""

from __future__ import annotations

import math

import numpy as np

from service.core import gaps
from service.core.errors import InvalidInput
from service.core.lookahead import check_horizon
from service.core.requests import PredictRequest
from service.core.types import FloatArray, ModelSpec

FEW = 16  # numbers up to which Python's own arithmetic beats an array's


def check_request(spec: ModelSpec, request: PredictRequest, now: float, max_horizon: int) -> None:
    """InvalidInput naming the field, or Unsupported, for a request that `spec`'s model can never absorb."""
    if request.checked is not spec:
        check_values(spec, request.observations)
    if request.times is not None:
        if len(request.times) != len(request.observations):
            raise InvalidInput("times", f"need one time per observation: {len(request.observations)}")
        gaps.check_times(spec, request.times, now)
    gaps.check_policy(spec, request.gap)
    check_horizon(spec, request.horizon, max_horizon)


def check_values(spec: ModelSpec, observations: FloatArray) -> None:
    """InvalidInput naming what is wrong with ``observations``: not (n, F) with n >= 1, not finite, beyond limits."""
    if observations.ndim != 2 or len(observations) == 0 or observations.shape[1] != len(spec.features):
        detail = f"need at least one row of {len(spec.features)} values, not {observations.shape}"
        raise InvalidInput("observations", detail)
    few = len(observations) <= FEW
    if not (all(map(math.isfinite, observations.ravel().tolist())) if few else np.isfinite(observations).all()):
        raise InvalidInput("observations", "hold a value that is not finite in float32", code="not_finite")
    for column, feature in enumerate(spec.features):
        if feature.minimum is None and feature.maximum is None:
            continue
        values = observations[:, column]
        unit = f" {feature.unit}" if feature.unit else ""
        low, high = extremes(values)
        if feature.minimum is not None and low < feature.minimum:
            raise InvalidInput(feature.name, f"{low:g} is below its minimum of {feature.minimum:g}{unit}")
        if feature.maximum is not None and high > feature.maximum:
            raise InvalidInput(feature.name, f"{high:g} is above its maximum of {feature.maximum:g}{unit}")


def extremes(values: FloatArray) -> tuple[float, float]:
    """The least and the greatest of ``values`` (n,), n >= 1. A handful is ten times as fast as plain numbers."""
    if len(values) <= FEW:
        plain = values.tolist()
        return min(plain), max(plain)
    return float(values.min()), float(values.max())
