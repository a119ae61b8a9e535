"""Scores of forecasts: small pure functions over arrays of what was observed and what was predicted."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Loss = Literal["squared", "qlike"]


def rmse(observed: Array, predicted: Array) -> float:
    """Root mean squared error, in the unit of the values."""
    return float(np.sqrt(np.mean(np.square(observed - predicted, dtype=np.float64))))


def mae(observed: Array, predicted: Array) -> float:
    """Mean absolute error, in the unit of the values."""
    return float(np.mean(np.abs(observed - predicted), dtype=np.float64))


def losses(kind: Loss, observed: Array, predicted: Array, floor: float = 1e-6) -> NDArray[np.float64]:
    """The loss of each forecast. `squared`: (o - p)^2. `qlike`: r - ln r - 1 with r = o^2 / p^2 (Patton 2011).

    For QLIKE both are volatilities, the root of the variance that is judged, and not below `floor`.
    """
    o, p = observed.astype(np.float64), predicted.astype(np.float64)
    if kind == "squared":
        return np.square(o - p)
    ratio = np.square(np.maximum(o, floor) / np.maximum(p, floor))
    return ratio - np.log(ratio) - 1.0


def coverage(observed: Array, lower: Array, upper: Array) -> float:
    """Share of the observed values inside their interval."""
    return float(np.mean((observed >= lower) & (observed <= upper)))


def advantage(naive: Array, model: Array, lag: int | None = None) -> tuple[float, float]:
    """Mean and variance of the mean of the loss difference naive - model (Diebold & Mariano 1995).

    ``naive`` and ``model`` (n,): losses of the same forecasts in time order. The variance allows for correlation over
    `lag` steps (Newey & West 1987), by default n^(1/3).
    """
    difference = naive.astype(np.float64) - model
    n = len(difference)
    centred = difference - difference.mean()
    lags = min(n - 1, round(n ** (1 / 3)) if lag is None else lag)
    variance = float(centred @ centred) / n
    for step in range(1, lags + 1):
        variance += 2 * (1 - step / (lags + 1)) * float(centred[step:] @ centred[:-step]) / n
    return float(difference.mean()), max(variance, 0.0) / n


def p_value(mean: float, variance: float) -> float:
    """One-sided: how likely an advantage of at least `mean` is where there is none."""
    if variance <= 0:
        return 0.0 if mean > 0 else 1.0
    return 0.5 * math.erfc(mean / math.sqrt(2 * variance))


def shown(value: float) -> str:
    """A score for people: four significant digits, zeros at the end too, so that a table's columns line up."""
    return f"{value:#.4g}".rstrip(".")
