"""The recall task: hold the value at the last mark among values to be ignored, for up to 200 steps.

Here are its series, the networks and their training, the same for every architecture, and the score.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.job import Architecture
from training.networks import memory

LENGTH = 200
MARK_RATE = 0.015
UNITS = 32
LEARNING_RATE = 5e-3
UPDATES = 1000
BATCH = 32
UPDATES_PER_CALL = 50
SEEDS = (0, 1, 2)
FAR = 100
BIN = 10
EVALUATION_SERIES = 4096
EVALUATION_SEED = 2**20  # training draws from seeds far below: the evaluation series are new to every run
ARCHITECTURES: tuple[Architecture, ...] = ("lstm", "gru", "simple_rnn", "feed_forward")
GATED = ("lstm", "gru")


@dataclass(frozen=True, slots=True)
class Series:
    """``x`` (n, 200, 2) float32: value and mark; ``y`` (n, 200) float32: the value at the last mark; ``lag`` (n, 200)
    int32: steps since that mark, 0 at the mark itself."""

    x: Any
    y: Any
    lag: Any

    def numpy(self) -> Series:
        """The same as numpy arrays."""
        return Series(np.asarray(self.x), np.asarray(self.y), np.asarray(self.lag))


@dataclass(frozen=True, slots=True)
class Run:
    """One trained network with its scores. `far` is R2 over all positions of lag >= 100, `by_lag` over bins of 10 lags
    (20,); `losses` holds the mean training loss of every 50 updates."""

    architecture: Architecture
    seed: int
    model: keras.Model
    losses: tuple[float, ...]
    far: float
    by_lag: NDArray[np.float64]
    seconds: float


def draw(count: int, seed: Any) -> Series:
    """`count` series of the task as tensors; `seed` is a pair of integers, and equal pairs draw equal series."""
    seed = tf.convert_to_tensor(seed, "int32")
    value = tf.random.stateless_uniform((count, LENGTH), seed, -1.0, 1.0)
    marked = tf.random.stateless_uniform((count, LENGTH), seed + tf.constant([0, 1])) < MARK_RATE
    marked = tf.concat([tf.ones((count, 1), "bool"), marked[:, 1:]], axis=1)
    steps = tf.range(LENGTH)[None]
    last = tf.where(marked, steps, 0)
    reach = 1
    while reach < LENGTH:  # a running maximum by doubling: XLA has no other that is quick
        last = tf.maximum(last, tf.pad(last, [[0, 0], [reach, 0]])[:, :LENGTH])
        reach *= 2
    x = tf.stack([value, tf.cast(marked, "float32")], axis=-1)
    return Series(x, tf.gather(value, last, batch_dims=1), steps - last)


def network(architecture: Architecture) -> keras.Model:
    """An untrained network, ``x`` (B, 200, 2) -> ``y`` (B, 200, 1): one layer of 32 units and a linear head."""
    x = keras.Input((LENGTH, 2), name="x", dtype="float32")
    lag = LENGTH if architecture in GATED else None
    return keras.Model(x, keras.layers.Dense(1, name="head")(memory(x, architecture, UNITS, 1, chrono_lag=lag)))


def train(
    architecture: Architecture,
    seed: int,
    *,
    updates: int = UPDATES,
    report: Callable[[int, float], None] = lambda done, loss: None,
) -> Run:
    """A network trained by `updates` updates (a multiple of 50) of Adam on fresh series, then scored.

    Gradients go back over the whole length and are not clipped; the loss is the squared error at every step.
    `report` is called with the updates done and the mean loss of the last 50.
    """
    if updates % UPDATES_PER_CALL:
        raise ValueError(f"updates must be a multiple of {UPDATES_PER_CALL}, not {updates}")
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    model = network(architecture)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(model.trainable_variables)

    def several_updates(first: Any) -> Any:
        total = tf.zeros(())
        for index in tf.range(UPDATES_PER_CALL):
            series = draw(BATCH, tf.stack([seed, 2 * (first + index)]))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(series.x, training=True)[..., 0] - series.y))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            total += loss
        return total / UPDATES_PER_CALL

    compiled = tf.function(several_updates, jit_compile=True)
    losses = []
    for first in range(0, updates, UPDATES_PER_CALL):
        losses.append(float(compiled(tf.constant(first))))
        report(first + UPDATES_PER_CALL, losses[-1])
    far, by_lag = score(model, evaluation())
    return Run(architecture, seed, model, tuple(losses), far, by_lag, time.monotonic() - started)


def evaluation() -> Series:
    """The 4,096 series every run is scored on, as numpy arrays."""
    return draw(EVALUATION_SERIES, (EVALUATION_SEED, 0)).numpy()


def score(model: keras.Model, series: Series) -> tuple[float, NDArray[np.float64]]:
    """R2 over the positions of lag >= 100, and over those of each bin of 10 lags (20,)."""
    answers = model.predict(series.x, batch_size=512, verbose=0)[..., 0]
    bins = [(series.lag >= low) & (series.lag < low + BIN) for low in range(0, LENGTH, BIN)]
    return r2(answers, series.y, series.lag >= FAR), np.array([r2(answers, series.y, where) for where in bins])


def r2(answers: NDArray[np.float32], truth: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """1 - mean squared error / variance of the truth, both over the positions `where` alone."""
    wanted = truth[where].astype(np.float64)
    return float(1.0 - np.square(answers[where] - wanted).mean() / wanted.var())
