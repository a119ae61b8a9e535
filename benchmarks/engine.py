"""What one engine step costs, by batch size, beside the bare runtime: microseconds, the middle one of many.

python -m benchmarks.engine [MODELS_DIR]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bare import Bare, bundle_of
from models.manifest import STEP_TFLITE
from service.engines import EngineKind, open_engine

BATCHES = (1, 32, 256)
ROUND_S = 0.02  # the two take turns so often that both meet the same weather


@dataclass(frozen=True, slots=True)
class Compared:
    """Microseconds of `Engine.step` and of the bare runtime; `ratio` is the middle one of their turns'."""

    step_us: float
    bare_us: float
    ratio: float


def beside_bare(
    root: Path, name: str, kind: EngineKind = "litert", seconds: float = 0.7, batches: tuple[int, ...] = BATCHES
) -> dict[int, Compared]:
    """`Engine.step` for each of `batches` in turn with LiteRT alone, allocated for that batch, `seconds` for each."""
    bundle, spec = bundle_of(root, name)
    engine, seen = open_engine(bundle, spec, kind), {}
    for batch in batches:
        x = np.zeros((batch, len(spec.features)), np.float32)
        fresh = np.tile(spec.initial_state, (batch, 1))
        bare = Bare(bundle / STEP_TFLITE, batch)
        rounds = max(3, round(seconds / ROUND_S / 2))
        turns = [(_round(engine.step, x, fresh), _round(bare.step, x, fresh)) for _ in range(rounds)]
        ours, theirs = zip(*turns, strict=True)
        seen[batch] = Compared(median(ours), median(theirs), median(one / other for one, other in turns))
    engine.close()
    return seen


def _round(step: Callable[..., Any], x: Any, state: Any) -> float:
    """The middle microseconds of as many steps as ROUND_S has room for."""
    times: list[float] = []
    end = time.perf_counter() + ROUND_S
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        _, state = step(x, state)
        times.append((time.perf_counter() - began) * 1e6)
    return median(times)


if __name__ == "__main__":
    for batch, one in beside_bare(Path(*sys.argv[1:] or ["models/published"]), "sensor", seconds=2.0).items():
        print(f"{batch:>4}: step {one.step_us:.1f} us, bare LiteRT {one.bare_us:.1f} us, ratio {one.ratio:.2f}")
