"""Fitting a job's network to its series: truncated backpropagation through time with carried state."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from rich.progress import Progress

from training.carried import Carried
from training.interruption import INTERRUPTION
from training.job import Fit, Job
from training.losses import Loss
from training.networks import build_network
from training.sources import Series
from training.streams import Batch, Prepared, prepared, training_batch, validation_batch
from training.windows import split


class Diverged(ArithmeticError):
    """A training whose loss was never a finite number: nothing was learnt."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"{job.name}: the loss is not finite; lower fit.learning_rate or look for absurd values in the data"
        )


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training part: losses are in units of the change; `validation` is with averaged weights."""

    number: int
    seconds: float
    loss: float
    validation: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted network: its weights are those of epoch `best`. Nothing has been written to disk."""

    model: keras.Model
    job: Job
    history: list[Epoch]
    best: int
    spread: list[float]
    seconds: float
    cpu_seconds: float


def fit(
    job: Job,
    series: Sequence[Series],
    *,
    quick: bool = False,
    progress: Progress | None = None,
    network: keras.Model | None = None,
) -> Fitted:
    """Train a network for `job` on `series`, each cut in time as `windows.split` says; the test part is never read.

    With `quick` the job's `quick` tables apply. `network`, one that `build_network` made for such a job, is trained on
    from the weights it has, with the constants of its preprocessing; without, a new one is.
    Deterministic given the job's seed, which becomes Keras' global seed.
    `progress` gets one task, a step of it for each epoch. Raises TooShort if a series cannot be split and
    Diverged if the loss is not finite.
    """
    if quick:
        job = job.quickened()
    began, cpu = time.monotonic(), time.process_time()
    parts = split(series, job)
    keras.utils.set_random_seed(job.fit.seed)
    train = [each.values for each in parts.train]
    network = build_network(job, train) if network is None else network
    changes = network.get_layer("forecast").changes
    ends = [len(values) for values in train]
    whole = [
        np.concatenate([part.values, later.values]) for part, later in zip(parts.train, parts.validation, strict=True)
    ]
    known = prepared(network, job, changes, whole)
    learnt = [each.until(end) for each, end in zip(known, ends, strict=True)]
    check = validation_batch(known, ends)
    trainer = Trainer(job, network)
    history = trainer.run(learnt, check, progress)
    sane = [epoch for epoch in history if math.isfinite(epoch.validation)]
    if not sane:
        raise Diverged(job)
    spread = trainer.calibrate(check)
    best = min(sane, key=lambda epoch: epoch.validation).number
    return Fitted(network, job, history, best, spread, time.monotonic() - began, time.process_time() - cpu)


class Trainer:
    """Fits `network` in place: compiled updates over chunks, averaged weights, early stopping on a validation batch."""

    def __init__(self, job: Job, network: keras.Model) -> None:
        self._settings, self._quantiles, self._name = job.fit, job.quantiles, job.name
        self._forecast = network.get_layer("forecast")
        self._carried = Carried(network, job.fit.dropout, job.fit.seed)
        self._loss = Loss(job)
        self._variables = self._carried.variables
        self._averages = [tf.Variable(each.value, trainable=False) for each in self._variables]
        self._update = tf.function(self._update_eagerly, autograph=False)
        self._check = tf.function(self._check_eagerly, autograph=False)
        self._normal = tf.function(self._normal_eagerly, autograph=False)

    def run(self, learnt: Sequence[Prepared], check: Batch, progress: Progress | None) -> list[Epoch]:
        """Train until the epochs are done or patience is out; then the weights are the best epoch's averages."""
        settings, random = self._settings, np.random.default_rng(self._settings.seed)
        first = training_batch(learnt, settings.streams, settings.chunk, np.random.default_rng(settings.seed))
        updates = settings.epochs * (first.seen.shape[1] // settings.chunk)
        self._optimizer = _optimizer(settings, updates)
        self._optimizer.build(self._variables)
        task = None if progress is None else progress.add_task(f"fit {self._name}", total=settings.epochs)
        history: list[Epoch] = []
        best, best_number, kept = math.inf, 0, self._values(self._averages)
        for number in range(1, settings.epochs + 1):
            began = time.monotonic()
            loss = self._epoch(training_batch(learnt, settings.streams, settings.chunk, random))
            validation = self.validate(check, self._averages)
            history.append(Epoch(number, time.monotonic() - began, loss, validation))
            if validation < best:
                best, best_number, kept = validation, number, self._values(self._averages)
            if progress is not None and task is not None:
                progress.update(task, advance=1, description=f"fit {self._name}: loss {loss:.4f}, best {best:.4f}")
            if number - best_number >= settings.patience or not math.isfinite(loss):
                break
        if progress is not None and task is not None:
            progress.update(task, completed=settings.epochs)
        self._assign(kept)
        return history

    def validate(self, check: Batch, weights: Sequence[Any] | None = None) -> float:
        """The loss over the steps of `check` that count, with `weights` in the place of the network's own."""
        trained = self._values(self._variables)
        if weights is not None:
            self._assign(self._values(weights))
        loss = float(self._check(check.seen, check.change, check.unit, check.counts))
        self._assign(trained)
        return loss

    def calibrate(self, check: Batch) -> list[float]:
        """Set every target's `spread` so that the outer interval covers its share of the validation steps; the factors.

        A step needs the factor at which the interval, widened about the middle quantile, just reaches the truth; the
        spread is the quantile of those at the interval's level. Left at 1 without an interval.
        """
        levels = self._quantiles
        if len(levels) < 3:
            return [1.0] * len(self._forecast.observed)
        normal = self._normal(check.seen).numpy()
        counted, middle = check.counts > 0, 1 + (len(levels) - 1) // 2
        miss = check.change - normal[..., middle]
        room = np.where(miss > 0, normal[..., -1] - normal[..., middle], normal[..., middle] - normal[..., 1])
        needed = (np.abs(miss) / np.maximum(room, 1e-6))[counted]
        factors = np.clip(np.quantile(needed, levels[-1] - levels[0], axis=0), 0.1, 10.0)
        self._forecast.spread.assign(factors.astype(np.float32))
        return [float(each) for each in factors]

    def _epoch(self, batch: Batch) -> float:
        state, losses = self._carried.fresh(batch.seen.shape[0]), []
        for chunk in batch.chunks(self._settings.chunk):
            INTERRUPTION.check()
            loss, state = self._update(chunk.seen, chunk.change, chunk.unit, chunk.counts, state)
            losses.append(loss)
        return float(np.mean([each.numpy() for each in losses]))

    def _update_eagerly(
        self, seen: Any, change: Any, unit: Any, counts: Any, state: list[Any]
    ) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            h, state = self._carried(seen, state, training=True)
            loss = self._loss(self._forecast.normal(h), change, unit, counts)
        self._optimizer.apply(tape.gradient(loss, self._variables), self._variables)
        done = tf.cast(self._optimizer.iterations, tf.float32)
        # early averages forget fast, or they would remember the untrained weights
        decay = tf.minimum(self._settings.averaging, (1.0 + done) / (10.0 + done))
        for average, variable in zip(self._averages, self._variables, strict=True):
            average.assign_add((1.0 - decay) * (variable.value - average))
        return loss, state

    def _normal_eagerly(self, seen: Any) -> Any:
        return self._forecast.normal(self._carried(seen, self._carried.fresh(seen.shape[0]))[0])

    def _check_eagerly(self, seen: Any, change: Any, unit: Any, counts: Any) -> Any:
        return self._loss(self._normal_eagerly(seen), change, unit, counts)

    def _values(self, variables: Sequence[Any]) -> list[NDArray[np.float32]]:
        return [each.numpy() for each in variables]

    def _assign(self, values: Sequence[NDArray[np.float32]]) -> None:
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)


def _optimizer(settings: Fit, updates: int) -> keras.optimizers.Optimizer:
    """Adam whose rate rises over the first tenth of the updates and then falls along a cosine to a hundredth."""
    warm = max(1, updates // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 10,
        max(1, updates - warm),
        0.01,
        warmup_target=settings.learning_rate,
        warmup_steps=warm,
    )
    return keras.optimizers.Adam(rate, global_clipnorm=settings.clip)
