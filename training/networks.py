"""The network of a job: a plain functional Keras model from raw observations to forecasts in raw units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.heads import Forecast
from training.job import Architecture, Job
from training.layers import ChronoBias, PrepareCell, Standardise


def memory(
    x: Any,
    architecture: Architecture,
    units: int,
    depth: int,
    *,
    chrono_lag: int | None = None,
    lags: int = 1,
) -> Any:
    """``depth`` layers of memory on top of the Keras tensor ``x`` (B, T, D) -> (B, T, units).

    `chrono_lag` starts the gates of an lstm or gru with memories of up to so many steps (Tallec & Ollivier 2018).
    `feed_forward` has no memory: it sees the last `lags` inputs, by default the current one alone.
    """
    if chrono_lag is not None and architecture not in ("lstm", "gru"):
        raise ValueError(f"chrono_lag is for lstm and gru, not {architecture}")
    for index in range(depth):
        name = f"memory_{index + 1}"
        if architecture == "lstm":
            kept: dict[str, Any] = {}
            if chrono_lag is not None:
                kept = {"unit_forget_bias": False, "bias_initializer": ChronoBias(chrono_lag, "lstm")}
            x = keras.layers.LSTM(units, return_sequences=True, name=name, **kept)(x)
        elif architecture == "gru":
            kept = {} if chrono_lag is None else {"bias_initializer": ChronoBias(chrono_lag, "gru")}
            x = keras.layers.GRU(units, return_sequences=True, name=name, **kept)(x)
        elif architecture == "simple_rnn":
            x = keras.layers.SimpleRNN(units, return_sequences=True, name=name)(x)
        elif index == 0 and lags > 1:
            x = keras.layers.Conv1D(units, lags, padding="causal", activation="tanh", name=name)(x)
        else:
            x = keras.layers.Dense(units, activation="tanh", name=name)(x)
    return x


@dataclass(frozen=True, slots=True)
class Statistics:
    """What preprocessing knows of the training data, per feature: of z, the value or its logarithm."""

    means: list[float]
    deviations: list[float]
    changes: list[float]

    @classmethod
    def of(cls, job: Job, train: Sequence[NDArray[np.float32]]) -> Statistics:
        """From training values only, each (n, F) raw; a constant feature gets the deviation 1."""
        logged = [logarithms_of(job, values.astype(np.float64)) for values in train]
        together = np.concatenate(logged)
        steps = np.concatenate([np.diff(each, axis=0) for each in logged])
        return cls(
            together.mean(axis=0).tolist(),
            _positive(together.std(axis=0)),
            _positive(np.sqrt(np.square(steps).mean(axis=0)) if len(steps) else np.zeros(together.shape[1])),
        )


def build_network(job: Job, train: Sequence[NDArray[np.float32]]) -> keras.Model:
    """An untrained network for `job`: ``x`` (B, T, F) raw float32 -> ``y`` (B, T, K, 1 + Q) raw float32.

    ``train`` are the training values, each (n, F) raw, which set the constants of preprocessing and nothing else does.
    Before training it forecasts about the last value. Weights depend on Keras' global seed.
    """
    known, network = Statistics.of(job, train), job.network
    floors = [feature.floor for feature in job.features]
    x = keras.Input((None, len(job.features)), name="x", dtype="float32")
    if job.architecture == "feed_forward":
        seen = Standardise(known.means, known.deviations, floors, name="prepare")(x)
    else:
        cell = PrepareCell(
            known.means, known.deviations, known.changes, floors, network.averages, job.running_scale, network.level
        )
        seen = keras.layers.RNN(cell, return_sequences=True, name="prepare")(x)
    remembered = memory(
        seen,
        job.architecture,
        network.units,
        network.depth,
        chrono_lag=network.chrono_lag if job.architecture in ("lstm", "gru") else None,
        lags=network.lags,
    )
    both = keras.layers.Concatenate(name="both")([remembered, seen])
    width = len(job.targets) * (1 + len(job.quantiles))
    small = keras.initializers.RandomNormal(stddev=0.01)
    h = keras.layers.Dense(width, kernel_initializer=small, name="head")(both)
    forecast = Forecast(
        job.observed, known.changes, floors, len(job.quantiles), job.running_scale is not None, name="forecast"
    )
    y = forecast([h, x] if job.running_scale is None else [h, x, seen])
    return keras.Model(x, y, name=job.name.replace("-", "_"))


def logarithms_of(job: Job, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` (n, F) raw -> z (n, F): the logarithm of max(value, floor) where there is a floor."""
    columns = [
        values[:, index] if feature.floor is None else np.log(np.maximum(values[:, index], feature.floor))
        for index, feature in enumerate(job.features)
    ]
    return np.stack(columns, axis=1)


def _positive(values: NDArray[np.float64]) -> list[float]:
    return [float(value) if value > 0 else 1.0 for value in values]
