"""What a bundle would have answered in the past: its exported step streamed over whole series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from training.stepping import Stepper

Array = NDArray[np.float32]
BATCH = 256


@dataclass(frozen=True, slots=True)
class Hindcast:
    """One series' forecasts from the origins start - 1 ... n - 1 (an origin is the last observation known).

    ``next`` (n - start, K, 1 + Q): what was answered for observation start + i, one step ahead.
    ``ahead`` (n - start + 1, H, K): point forecasts from origin start - 1 + i for h = 1 ... H; H is 1 for a model that
    does not predict all its features. ``states`` (n - start + 1, S): the state behind each origin.
    """

    start: int
    next: Array
    ahead: Array
    states: Array


def feedback(manifest: Manifest) -> NDArray[np.intp] | None:
    """For each feature the target that predicts it; None if some feature is not predicted."""
    targets = [target.name for target in manifest.targets]
    names = [feature.name for feature in manifest.features]
    return np.array([targets.index(n) for n in names], np.intp) if set(names) <= set(targets) else None


def hindcast(
    stepper: Stepper,
    manifest: Manifest,
    values: Array,
    start: int,
    horizon: int,
    advance: Callable[[float], None] = lambda _: None,
) -> Hindcast:
    """Stream ``values`` (n, F) from the first observation on, and look `horizon` steps ahead from `start` - 1 on.

    `advance` hears the share done, 0 to 1.
    """
    n = len(values)
    state = np.array([manifest.initial_state], np.float32)
    states = np.empty((n - start + 1, state.shape[1]), np.float32)
    ys = np.empty((n - start + 1, len(manifest.targets), 1 + len(manifest.quantiles)), np.float32)
    for t in range(n):
        y, state = stepper.step(values[t : t + 1], state)
        if t >= start - 1:
            ys[t - start + 1], states[t - start + 1] = y[0], state[0]
        if t % 1000 == 0:
            advance(0.4 * t / n)
    back = feedback(manifest)
    ahead = ys[:, None, :, 0] if back is None else _look_ahead(stepper, ys, states, back, horizon, advance)
    return Hindcast(start, ys[:-1], ahead, states)


def _look_ahead(
    stepper: Stepper,
    ys: Array,
    states: Array,
    back: NDArray[np.intp],
    horizon: int,
    advance: Callable[[float], None],
) -> Array:
    """Feed point forecasts back, many origins at a time; a short last batch is padded."""
    out = np.empty((len(ys), horizon, ys.shape[1]), np.float32)
    for first in range(0, len(ys), BATCH):
        advance(0.4 + 0.6 * first / len(ys))
        rows = np.minimum(np.arange(first, first + BATCH), len(ys) - 1)
        kept = min(BATCH, len(ys) - first)
        point, state = ys[rows, :, 0], states[rows]
        for h in range(horizon):
            out[first : first + kept, h] = point[:kept]
            if h < horizon - 1:
                y, state = stepper.step(np.ascontiguousarray(point[:, back]), state)
                point = y[:, :, 0]
    return out
