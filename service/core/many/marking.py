"""`scoring.score` and `lookahead.stretched` over many clients at once: the same numbers to the last bit."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.core.lookahead import LIMITLESS
from service.core.requests import MARKS
from service.core.scoring import ANOMALY_AFTER, DECAY, MOST_ANOMALY, STRETCH, STRETCH_MOST
from service.core.types import LEAST_ERROR, MOST_ERROR, FloatArray, ModelSpec

Numbers = NDArray[np.float64]


class Marked(NamedTuple):
    """``sums`` (n, K, LIVE_SUMS) and ``stretch`` (n, K) after the observations, ``marks`` (n, K, MARKS) what these add,
    ``anomaly`` (n, K) float32."""

    sums: Numbers
    stretch: Numbers | None
    marks: Numbers
    anomaly: FloatArray


class Past(NamedTuple):
    """What the clients' records say.

    ``scored`` (n,), ``weight`` (n,), ``sums`` (n, K, LIVE_SUMS); ``stretch`` (n, K), None where intervals stay as the
    model says; ``point`` (n, K) and ``interval`` (n, K, 2) or None: what they were told.
    """

    scored: NDArray[np.uint64]
    weight: Numbers
    sums: Numbers
    stretch: Numbers | None
    point: FloatArray
    interval: FloatArray | None


def mark(spec: ModelSpec, past: Past, x: FloatArray, before: FloatArray) -> Marked:
    """Observations ``x`` (n, F) held against what the clients were told of them; ``before`` (n, F) came before them."""
    sums = DECAY * past.sums
    n, targets = past.point.shape
    marks, anomaly = np.zeros((n, targets, MARKS)), np.full((n, targets), np.nan, np.float32)
    stretch = None if past.stretch is None else past.stretch.copy()
    known = past.scored >= ANOMALY_AFTER
    some, every = bool(known.any()), bool(known.all())
    alpha = 1.0 - (spec.level or 0.0)
    for k, feature in enumerate(spec.observed.tolist()):
        if feature < 0:
            continue
        scale = spec.targets[k].scale
        value = x[:, feature].astype(np.float64)
        absolute, step = np.abs(value - past.point[:, k]), np.abs(value - before[:, feature])
        if some:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                usual = np.sqrt(past.sums[:, k, 1] / past.weight)
                ratio = absolute / np.maximum(usual, LEAST_ERROR * scale)
                times = np.minimum(ratio, MOST_ANOMALY).astype(np.float32)
            anomaly[:, k] = times if every else np.where(known, times, np.float32(np.nan))
        most = MOST_ERROR * scale
        absolute, step = np.minimum(absolute, most), np.minimum(step, most)
        squared, naive_squared = absolute * absolute, step * step
        sums[:, k, 0] += absolute
        sums[:, k, 1] += squared
        sums[:, k, 2] += naive_squared
        of_it = marks[:, k]
        of_it[:, 0], of_it[:, 1], of_it[:, 2], of_it[:, 3] = 1.0, absolute, squared, naive_squared
        if past.interval is not None:
            covered = ((past.interval[:, k, 0] <= value) & (value <= past.interval[:, k, 1])).astype(np.float64)
            sums[:, k, 3] += covered
            of_it[:, 4], of_it[:, 5] = covered, 1.0
            if stretch is not None and spec.level is not None:
                log = stretch[:, k] + STRETCH * (1.0 - covered - alpha)
                stretch[:, k] = np.minimum(np.maximum(log, -STRETCH_MOST), STRETCH_MOST)
    return Marked(sums, stretch, marks, anomaly)


def stretch_out(spec: ModelSpec, y: FloatArray, own: FloatArray, stretch: Numbers) -> FloatArray:
    """``own`` (n, K, 2), the bounds around predictions ``y`` (n, K, W), as `lookahead.stretched` stretches them."""
    wide: NDArray[np.bool_] = np.any(stretch != 0.0, axis=1)
    if not wide.any():
        return own
    factor = np.array(list(map(math.exp, stretch.ravel().tolist()))).reshape(stretch.shape)  # numpy's may differ a bit
    lower, upper, point = (each.astype(np.float64) for each in (own[..., 0], own[..., 1], y[..., 0]))
    middle = np.where(point < lower, lower, np.where(point > upper, upper, point))
    limits = np.array(spec.limits or (LIMITLESS,) * len(spec.targets), np.float64)
    least, most = limits[:, 0], limits[:, 1]
    low, high = middle - factor * (middle - lower), middle + factor * (upper - middle)
    low = np.where(low > least, low, np.minimum(least, lower))
    high = np.where(high < most, high, np.maximum(most, upper))
    ends: FloatArray = np.stack((low, high), axis=-1).astype(np.float32)
    return ends if wide.all() else np.where(wide[:, None, None], ends, own)
