"""Forecasters with a closed form, behind the stepper's port: what they must score is known beforehand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from models.manifest import Feature, GateLayer, Manifest, Target
from training.job import FeatureColumn, Gates, Job, TargetColumn
from training.source_tables import Source
from training.sources import Series

QUANTILES = (0.05, 0.5, 0.95)
Z90 = 1.6448536


class Proportional:
    """Answers phi x with normal quantiles of deviation sigma; its state counts steps and keeps the last value."""

    def __init__(self, phi: float, sigma: float = 1.0) -> None:
        self._phi, self._offsets = np.float32(phi), np.array([0, -Z90 * sigma, 0, Z90 * sigma], np.float32)

    def step(self, x, state):
        y = self._phi * x[:, :, None] + self._offsets
        return y, np.stack([state[:, 0] + 1, x[:, 0]], axis=1)

    def gates(self, x, state):
        wave = 1 / (1 + np.exp(-(x[:, :1] + state[:, 1:])))
        return {"gates_0": np.tile(wave, (1, 12)).astype(np.float32)}


def manifest(n_features: int = 1, **changes) -> Manifest:
    """A manifest that fits `Proportional` over features a, b, …, hourly."""
    names = "abc"[:n_features]
    given = {
        "name": "closed",
        "fingerprint": "0" * 64,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "features": tuple(Feature(name=n, unit="m") for n in names),
        "targets": tuple(Target(name=n, unit="m", scale=1.0) for n in names),
        "interval_s": 3600.0,
        "initial_state": (0.0, 0.0),
        "quantiles": QUANTILES,
        "architecture": "closed",
        "context_length": 64,
        "gates": (GateLayer(output="gates_0", layer="memory", cell="LSTM", names=("i", "f", "c", "o"), units=3),),
    }
    return Manifest(**given | changes)


def job(n_features: int = 1, **changes) -> Job:
    """A job that fits `manifest`."""
    names = "abc"[:n_features]
    given = {
        "name": "closed",
        "title": "A closed form",
        "source": Source(path="none.csv"),
        "features": tuple(FeatureColumn(name=n, unit="m") for n in names),
        "targets": tuple(TargetColumn(name=n) for n in names),
        "interval_s": 3600.0,
        "quantiles": QUANTILES,
        "horizon": 6,
        "season": 24,
        "gates": Gates(coverage=(0.87, 0.93)),
    }
    return Job(**given | changes)


def autoregressive(
    phi: float, n: int, *, seed: int = 1, sigma: float = 1.0, n_features: int = 1, key: str = "s"
) -> Series:
    """x' = phi x + sigma e, hourly."""
    rng = np.random.default_rng(seed)
    values = np.zeros((n, n_features))
    for t in range(1, n):
        values[t] = phi * values[t - 1] + sigma * rng.standard_normal(n_features)
    return Series(key, 1.6e9 + 3600.0 * np.arange(n), values.astype(np.float32))
