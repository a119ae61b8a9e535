"""Replays every client's series offline and compares each acknowledged prediction: promise 1, whatever went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.chaos.load import Broken, Client

Offline = Callable[[NDArray[np.float32]], NDArray[np.float32]]
TARGETS = ("temperature", "dew_point", "pressure")
SCALE = 1.0  # the tiny bundle's `scale`
TOLERANCE = 1e-5
BATCH = 64


def make_offline(seed: int = 11) -> Offline:
    """The tiny bundle's Keras model in one pass: (B, T, 3) -> (B, T, 3, 4), any length, few graphs. Another `seed` has
    other weights, as in `make_tiny_bundle`."""
    import tensorflow as tf

    from tests.training.bundles import make_tiny_model

    whole_pass = tf.function(make_tiny_model(seed=seed), reduce_retracing=True)

    def run(series: NDArray[np.float32]) -> NDArray[np.float32]:
        length = series.shape[1]
        padded = np.zeros((BATCH, max(64, 1 << (length - 1).bit_length()), 3), np.float32)
        padded[: len(series), :length] = series  # the model is causal: what follows changes nothing
        return np.asarray(whole_pass(padded))[: len(series), :length]

    return run


def check(clients: Sequence[Client], offline: Offline) -> int:
    """How many predictions were compared; Broken naming the first that is not what the offline pass says."""
    compared = 0
    for at in range(0, len(clients), BATCH):
        batch = clients[at : at + BATCH]
        longest = max(client.step for client in batch)
        expected = offline(np.stack([client.series(longest) for client in batch]))
        compared += sum(_check_one(client, rows) for client, rows in zip(batch, expected, strict=True))
    return compared


def _check_one(client: Client, expected: NDArray[np.float32]) -> int:
    """``expected`` (T, 3, 4): the point forecast, then the quantiles .05, .5 and .95."""
    reached = 0
    for answer in client.answers:
        if answer.first <= reached or answer.last < answer.first:
            raise Broken(f"{client.name}: steps {answer.first} to {answer.last} came after step {reached}")
        reached = answer.last
    told = [one for answer in client.answers for one in answer.predictions]
    if not told:
        return 0
    values = np.array([[_numbers(prediction[name]) for name in TARGETS] for _, prediction in told])
    rows = expected[[step - 1 for step, _ in told]][:, :, (0, 1, 3)].astype(np.float64)
    room = TOLERANCE * np.maximum(np.abs(rows), SCALE)
    off = np.flatnonzero((np.abs(values - rows) > room).any(axis=(1, 2)))
    if len(off):
        step, prediction = told[off[0]]
        raise Broken(f"{client.name}, step {step}: {prediction}, offline {rows[off[0]]}; {len(off)} of {len(told)} off")
    return len(told)


def _numbers(target: dict[str, object]) -> tuple[object, object, object]:
    interval = target["interval"]
    assert isinstance(interval, dict)
    return target["value"], interval["lower"], interval["upper"]
