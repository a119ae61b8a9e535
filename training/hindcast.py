"""What a bundle would have answered in the past: its exported step streamed over whole series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from training.stepping import Stepper

Array = NDArray[np.float32]
BATCH = 256  # origins that look ahead side by side
STREAMS = 64  # series that stream side by side


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
    series: Sequence[Array],
    starts: Sequence[int],
    horizon: int,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Hindcast]:
    """Stream each of ``series`` (n, F) from its first observation on, and look `horizon` ahead from its start - 1 on.

    Series run side by side, in batches of the like length. `advance` hears the share done, 0 to 1.
    """
    back = feedback(manifest)
    found: dict[int, Hindcast] = {}
    order = sorted(range(len(series)), key=lambda i: len(series[i]))
    for first in range(0, len(order), STREAMS):
        group = order[first : first + STREAMS]
        share, base = len(group) / len(series), first / len(series)
        streamed = _stream(
            stepper, manifest, [series[i] for i in group], [starts[i] for i in group],
            lambda done, base=base, share=share: advance(base + 0.4 * share * done),  # type: ignore[misc]
        )  # fmt: skip
        for at, (i, (ys, states)) in enumerate(zip(group, streamed, strict=True)):
            ahead = ys[:, None, :, 0] if back is None else _look_ahead(stepper, ys, states, back, horizon)
            found[i] = Hindcast(starts[i], ys[:-1], ahead, states)
            advance(base + share * (0.4 + 0.6 * (at + 1) / len(group)))
    return [found[i] for i in range(len(series))]


def _stream(
    stepper: Stepper,
    manifest: Manifest,
    series: Sequence[Array],
    starts: Sequence[int],
    advance: Callable[[float], None],
) -> list[tuple[Array, Array]]:
    """For each series what was answered after the observations start - 1 ... n - 1, and the states then."""
    lengths = [len(values) for values in series]
    x = np.zeros((max(lengths), len(series), series[0].shape[1]), np.float32)
    for i, values in enumerate(series):
        x[: len(values), i] = values
        x[len(values) :, i] = values[-1]  # padding, whose answers nobody keeps
    state = np.tile(np.array(manifest.initial_state, np.float32), (len(series), 1))
    shape = (len(manifest.targets), 1 + len(manifest.quantiles))
    kept = [
        (np.empty((n - start + 1, *shape), np.float32), np.empty((n - start + 1, state.shape[1]), np.float32))
        for n, start in zip(lengths, starts, strict=True)
    ]
    for t in range(len(x)):
        y, state = stepper.step(x[t], state)
        for i, (n, start) in enumerate(zip(lengths, starts, strict=True)):
            if start - 1 <= t < n:
                kept[i][0][t - start + 1], kept[i][1][t - start + 1] = y[i], state[i]
        if t % 1000 == 0:
            advance(t / len(x))
    return kept


def _look_ahead(
    stepper: Stepper,
    ys: Array,
    states: Array,
    back: NDArray[np.intp],
    horizon: int,
) -> Array:
    """Feed point forecasts back, many origins at a time; a short last batch is padded."""
    out = np.empty((len(ys), horizon, ys.shape[1]), np.float32)
    for first in range(0, len(ys), BATCH):
        rows = np.minimum(np.arange(first, first + BATCH), len(ys) - 1)
        kept = min(BATCH, len(ys) - first)
        point, state = ys[rows, :, 0], states[rows]
        for h in range(horizon):
            out[first : first + kept, h] = point[:kept]
            if h < horizon - 1:
                y, state = stepper.step(np.ascontiguousarray(point[:, back]), state)
                point = y[:, :, 0]
    return out
