"""What one engine step costs, by batch size: microseconds, the middle one of many."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np

from models.repository import Repository
from service.engines import EngineKind, open_engine
from service.specs import spec_of

BATCHES = (1, 32, 256)


def step_us(root: Path, name: str, kind: EngineKind = "litert", seconds: float = 0.7) -> dict[int, float]:
    """Median microseconds of `Engine.step` for each of BATCHES, `seconds` of stepping for each."""
    repository = Repository(root)
    version = repository.resolve(name)
    spec = spec_of(repository.verify(name, version), version)
    engine = open_engine(repository.bundle(name, version), spec, kind)
    middle = {}
    for batch in BATCHES:
        x = np.zeros((batch, len(spec.features)), np.float32)
        state = np.tile(spec.initial_state, (batch, 1))
        times: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            _, state = engine.step(x, state)
            times.append((time.perf_counter() - began) * 1e6)
        middle[batch] = median(times)
    engine.close()
    return middle
