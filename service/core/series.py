"""One client through a whole series, of which only the end counts: a history, a context that is replayed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from service.core.ports import Engine, Walks
from service.core.types import FloatArray

SLICE = 256  # steps between two looks at what came out: the outputs of no more are held at a time


class End(NamedTuple):
    """Where a series ends: ``y`` (K, W), ``state`` (1, S), and whether every prediction on the way was a number."""

    y: FloatArray
    state: FloatArray
    finite: bool


def walk(engine: Engine, x: FloatArray, state: FloatArray) -> End:
    """Step ``state`` (1, S) through ``x`` (T, F), T >= 1, with the same bits as one observation at a time gives."""
    finite, ys = True, np.empty((0,), np.float32)
    for at in range(0, len(x), SLICE):
        part = x[at : at + SLICE]
        ys, state = engine.walk(part, state) if isinstance(engine, Walks) else _one_by_one(engine, part, state)
        # summed in float64, where no float32 overflows: not a number, or infinite, shows in the sum
        finite = finite and math.isfinite(ys.sum(dtype=np.float64))
    return End(ys[-1], state, finite)


def _one_by_one(engine: Engine, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
    ys = []
    for row in x[:, None]:
        y, state = engine.step(row, state)
        ys.append(y)
    return np.concatenate(ys), state
