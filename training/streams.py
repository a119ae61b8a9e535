"""Prepared series cut into pieces that run side by side: what a carried pass trains on and is checked with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.job import Job
from training.networks import logarithms_of

Floats = NDArray[np.float32]
WARM_UP = 96  # steps a validation piece runs before it counts


@dataclass(frozen=True, slots=True)
class Prepared:
    """One series as the memory sees it: ``seen`` (n, D) prepared inputs, ``change`` (n, K) to the next observation.

    The change, of the value or its logarithm, is in units of ``unit`` (n, K), in which the network predicts it. The
    last observation, which has no next, is left out.
    """

    seen: Floats
    change: Floats
    unit: Floats

    def __len__(self) -> int:
        return len(self.seen)

    def until(self, stop: int) -> Prepared:
        """What was known when the observations were the first `stop`."""
        return Prepared(self.seen[: stop - 1], self.change[: stop - 1], self.unit[: stop - 1])


@dataclass(frozen=True, slots=True)
class Batch:
    """Prepared pieces side by side, each array with a leading B; ``counts`` (B, T) is 1 where a step counts, else 0."""

    seen: Floats
    change: Floats
    unit: Floats
    counts: Floats

    def chunks(self, length: int) -> Iterator[Batch]:
        """The batch cut along time, `length` steps each."""
        for start in range(0, self.seen.shape[1], length):
            at = slice(start, start + length)
            yield Batch(self.seen[:, at], self.change[:, at], self.unit[:, at], self.counts[:, at])


def prepared(network: keras.Model, job: Job, changes: Sequence[float], series: Sequence[Floats]) -> list[Prepared]:
    """Run the network's own preprocessing over whole series, each (n, F) raw and from its beginning."""
    # side by side and padded to one length, which a causal pass may ignore: compiled once, however many series
    padded = np.zeros((len(series), max(len(values) for values in series), series[0].shape[1]), np.float32)
    for row, values in enumerate(series):
        padded[row, : len(values)] = values
    run = tf.function(keras.Model(network.input, network.get_layer("prepare").output), jit_compile=True)
    together = run(tf.convert_to_tensor(padded)).numpy()
    return [_prepared(job, changes, values, seen[: len(values)]) for values, seen in zip(series, together, strict=True)]


def _prepared(job: Job, changes: Sequence[float], values: Floats, seen: Floats) -> Prepared:
    z = logarithms_of(job, values.astype(np.float64))
    unit = np.broadcast_to(np.asarray(changes), (len(z) - 1, len(changes)))
    if job.running_scale is not None:
        unit = unit * np.exp(seen[:-1, -len(changes) :])
    targets = list(job.observed)
    change = np.diff(z, axis=0)[:, targets] / unit[:, targets]
    return Prepared(seen[:-1], change.astype(np.float32), unit[:, targets].astype(np.float32))


def training_batch(series: Sequence[Prepared], streams: int, chunk: int, random: np.random.Generator) -> Batch:
    """About `streams` pieces of equal length, a multiple of `chunk`, cut at a random place: every step counts once."""
    total = sum(len(each) for each in series)
    length = max(1, round(total / streams / chunk)) * chunk
    pieces = []
    for each in series:
        first = int(random.integers(1, length + 1))
        # always the same number of pieces, so that a compiled step is compiled once
        starts = [0] + [first + length * index for index in range(-(-len(each) // length))]
        stops = [*starts[1:], starts[-1] + length]
        pieces += [(each, start, start, min(stop, len(each))) for start, stop in zip(starts, stops, strict=True)]
    return _stacked(pieces, length)


def validation_batch(series: Sequence[Prepared], starts: Sequence[int], pieces: int = 16) -> Batch:
    """What comes after `starts` of each series, in pieces that each warm up on the steps before them."""
    total = sum(len(each) - start for each, start in zip(series, starts, strict=True))
    length = -(-total // pieces)
    cuts = [
        (each, max(0, counted - WARM_UP), counted, min(counted + length, len(each)))
        for each, start in zip(series, starts, strict=True)
        for counted in range(start, len(each), length)
    ]
    return _stacked(cuts, length + WARM_UP)


def _stacked(pieces: Sequence[tuple[Prepared, int, int, int]], length: int) -> Batch:
    """Pieces (series, start, first that counts, stop) from their start on, padded with zeros that do not count."""
    width, targets = pieces[0][0].seen.shape[1], pieces[0][0].change.shape[1]
    batch = Batch(
        np.zeros((len(pieces), length, width), np.float32),
        np.zeros((len(pieces), length, targets), np.float32),
        np.ones((len(pieces), length, targets), np.float32),
        np.zeros((len(pieces), length), np.float32),
    )
    for row, (each, start, counted, stop) in enumerate(pieces):
        if stop > start:
            batch.seen[row, : stop - start] = each.seen[start:stop]
            batch.change[row, : stop - start] = each.change[start:stop]
            batch.unit[row, : stop - start] = each.unit[start:stop]
            batch.counts[row, counted - start : stop - start] = 1.0
    return batch
