"""Small Keras models of every shape that the walk has to take or to refuse, each built anew by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

RNN = {"return_sequences": True}


def model(build: Callable[[Any], Any], n_features: int = 2, length: int | None = None) -> keras.Model:
    """`build` applied to an input (batch, time, features), seeded."""
    keras.utils.set_random_seed(3)
    x = layers.Input((length, n_features), name="x")
    return keras.Model(x, build(x), name="zoo")


@keras.saving.register_keras_serializable(package="zoo")
class LeakyCell(layers.Layer):
    """A leaky integrator that does not start at zero: s' = 0.9 s + 0.1 x, from s = 5."""

    def __init__(self, width: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = self.state_size = self.output_size = width

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        return [ops.full((batch_size, self.width), 5.0)]

    def call(self, inputs: Any, states: Any) -> Any:
        level = 0.9 * states[0] + 0.1 * inputs
        return level, [level]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def _nested(x: Any) -> Any:
    inner = keras.Sequential(
        [layers.Input((None, 3)), layers.GRU(3, name="deep", **RNN), layers.Dense(3)], name="inner"
    )
    middle_in = layers.Input((None, 2))
    middle = keras.Model(middle_in, inner(layers.Dense(3)(middle_in)), name="middle")
    return layers.Dense(2)(middle(x))


def _everything(x: Any) -> Any:
    scaled = layers.Normalization(mean=[1.0, -1.0], variance=[4.0, 0.25])(x)
    h = layers.LSTM(4, **RNN)(layers.Dropout(0.5)(scaled))
    h = layers.LayerNormalization()(h)
    h = layers.Concatenate()([h, layers.TimeDistributed(layers.Dense(3, activation="relu"))(scaled)])
    return layers.Add()([x, layers.Dense(2)(layers.BatchNormalization()(h))])


def _with_state(x: Any) -> Any:
    sequence, h, c = layers.LSTM(3, return_state=True, name="telling", **RNN)(x)
    return layers.Dense(2)(layers.Concatenate()([sequence[:, -1], h, c]))


TAKEN: dict[str, Callable[[], keras.Model]] = {
    "two LSTMs": lambda: model(lambda x: layers.Dense(2)(layers.LSTM(3, **RNN)(layers.LSTM(4, **RNN)(x)))),
    "GRU": lambda: model(lambda x: layers.Dense(2)(layers.GRU(4, **RNN)(x))),
    "old GRU": lambda: model(lambda x: layers.Dense(2)(layers.GRU(4, reset_after=False, **RNN)(x))),
    "SimpleRNN": lambda: model(lambda x: layers.Dense(2)(layers.SimpleRNN(4, **RNN)(x))),
    "stacked cells": lambda: model(
        lambda x: layers.Dense(2)(
            layers.RNN([layers.LSTMCell(3), layers.GRUCell(4), LeakyCell(4), layers.LSTMCell(2)], **RNN)(x)
        )
    ),
    "one stacked cell": lambda: model(lambda x: layers.Dense(2)(layers.RNN([layers.LSTMCell(3)], **RNN)(x))),
    "own cell, not from zero": lambda: model(lambda x: layers.Dense(2)(layers.RNN(LeakyCell(), **RNN)(x))),
    "nested models": lambda: model(_nested),
    "everything stateless": lambda: model(_everything),
    "causal convolutions": lambda: model(
        lambda x: layers.Dense(2)(
            layers.Conv1D(3, 2, padding="causal", dilation_rate=4)(layers.Conv1D(4, 3, padding="causal")(x))
        )
    ),
    "last step alone": lambda: model(lambda x: layers.Dense(2)(layers.LSTM(3)(layers.GRU(3, **RNN)(x)))),
    "sliced last step": lambda: model(lambda x: layers.Dense(2)(layers.LSTM(3, **RNN)(x)[:, -1, :])),
    "states as outputs": lambda: model(_with_state),
    "made for windows of 8": lambda: model(lambda x: layers.Dense(2)(layers.LSTM(3, **RNN)(x)), length=8),
    "no memory": lambda: model(lambda x: layers.Dense(2)(layers.Dense(4, activation="tanh")(x))),
}


def _shared(x: Any) -> Any:
    twice = layers.LSTM(2, name="twice", **RNN)
    return layers.Dense(2)(twice(twice(x)))


def _shared_model(x: Any) -> Any:
    inner = keras.Sequential([layers.Input((None, 2)), layers.GRU(2, name="deep", **RNN)], name="inner")
    return layers.Dense(2)(inner(inner(x)))


def _started(x: Any) -> Any:
    start = layers.Dense(3)(x[:, 0])
    return layers.Dense(2)(layers.GRU(3, name="started", **RNN)(x, initial_state=start))


def _two_inputs() -> keras.Model:
    a, b = layers.Input((None, 2), name="a"), layers.Input((None, 2), name="b")
    return keras.Model([a, b], layers.Add()([a, b]))


class Opaque(keras.Model):
    """A subclassed model: its call() can't be walked."""

    def call(self, x: Any) -> Any:
        return x


@keras.saving.register_keras_serializable(package="zoo")
class Coarse(layers.Layer):
    """A foreign layer that answers in double precision, whatever its policy says."""

    def call(self, x: Any) -> Any:
        return ops.cast(x, "float64")


REFUSED: dict[str, tuple[Callable[[], keras.Model], str, str]] = {
    "Masking": (lambda: model(lambda x: layers.LSTM(2, **RNN)(layers.Masking(name="m")(x))), "m", "no mask"),
    "Bidirectional": (
        lambda: model(lambda x: layers.Dense(2)(layers.Bidirectional(layers.LSTM(2, **RNN), name="both")(x))),
        "both", "future",
    ),
    "go_backwards": (lambda: model(lambda x: layers.GRU(2, go_backwards=True, name="g", **RNN)(x)), "g", "future"),
    "attention": (
        lambda: model(lambda x: layers.MultiHeadAttention(1, 2, name="look")(x, x)), "look", "whole series",
    ),
    "pooling": (
        lambda: model(lambda x: layers.Dense(2)(layers.GlobalAveragePooling1D(name="pool")(x))), "pool", "over time",
    ),
    "Flatten": (lambda: model(lambda x: layers.Dense(2)(layers.Flatten(name="f")(x)), length=8), "f", "fixed window"),
    "a shared RNN": (lambda: model(_shared), "twice#2", "also used"),
    "a shared nested RNN": (lambda: model(_shared_model), "inner#2/deep", "also used"),
    "initial_state": (lambda: model(_started), "started", "initial_state"),
    "two inputs": (_two_inputs, "", "several inputs"),
    "mixed precision": (
        lambda: model(lambda x: layers.Dense(2, dtype="mixed_float16", name="half")(x)), "half", "mixed_float16",
    ),
    "an acausal convolution": (
        lambda: model(lambda x: layers.Conv1D(2, 3, padding="same", name="wide")(x)), "wide", "causal",
    ),
    "a strided convolution": (
        lambda: model(lambda x: layers.Conv1D(2, 3, strides=2, padding="causal", name="skip")(x)), "skip", "strides",
    ),
    "repetition": (
        lambda: model(lambda x: layers.LSTM(2, **RNN)(layers.RepeatVector(3, name="again")(layers.LSTM(2)(x)))),
        "again", "time axis",
    ),
    "unrolled": (
        lambda: model(lambda x: layers.LSTM(2, unroll=True, name="flat", **RNN)(x), length=8), "flat", "unroll",
    ),
    "a cell of half precision": (
        lambda: model(lambda x: layers.RNN(layers.GRUCell(2, dtype="mixed_float16", name="c"), name="half", **RNN)(x)),
        "half", "'c' is 'mixed_float16'",
    ),
    "half precision below TimeDistributed": (
        lambda: model(lambda x: layers.TimeDistributed(layers.Dense(2, dtype="mixed_float16"), name="each")(x)),
        "each", "mixed_float16",
    ),
    "a Lambda below TimeDistributed": (
        lambda: model(lambda x: layers.TimeDistributed(layers.Lambda(lambda v: v * 2), name="each")(x)),
        "each", "Python code",
    ),
    "time stretched": (
        lambda: model(lambda x: layers.LSTM(2, **RNN)(layers.Reshape((-1, 1), name="thin")(x))), "thin", "stretched",
    ),
    "a cast to half precision": (
        lambda: model(lambda x: layers.Dense(2)(ops.cast(ops.cast(x, "float16"), "float32"))), "cast", "float16",
    ),
    "double precision in a layer": (
        lambda: model(lambda x: layers.Dense(2)(Coarse(name="coarse")(x))), "coarse", "float64",
    ),
    "a subclassed model": (lambda: Opaque(name="opaque"), "opaque", "functional"),
}  # fmt: skip


def _stateful() -> keras.Model:
    x = layers.Input(batch_shape=(1, None, 2))
    return keras.Model(x, layers.LSTM(2, stateful=True, name="kept", **RNN)(x))


REFUSED["stateful"] = (_stateful, "kept", "stateful")


@keras.saving.register_keras_serializable(package="zoo")
class Peek(layers.Layer):
    """A foreign layer that hands on the next step's input."""

    def call(self, x: Any) -> Any:
        return ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)


@keras.saving.register_keras_serializable(package="zoo")
class Hiding(layers.Layer):
    """A foreign layer with a memory that the walk can't see."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.memory = layers.LSTM(2, return_sequences=True)

    def build(self, shape: Any) -> None:
        self.memory.build(shape)

    def call(self, x: Any) -> Any:
        return self.memory(x)


def _long_ago(x: Any) -> Any:
    return layers.Dense(2)(x) + ops.pad(x, [[0, 0], [600, 0], [0, 0]])[:, :-600]


CAUGHT: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "the first step subtracted": (
        lambda: model(lambda x: layers.Dense(2)(layers.Subtract(name="since")([x, x[:, :1]]))), "get_item",
    ),
    "a sum over time": (lambda: model(lambda x: layers.Dense(2)(ops.cumsum(x, axis=1))), "cumsum"),
    "a mean over time": (lambda: model(lambda x: x - ops.mean(x, axis=1, keepdims=True)), "mean"),
    "normalised over time": (
        lambda: model(lambda x: layers.LayerNormalization(1, center=False, scale=False, name="over_time")(x)),
        "over_time",
    ),
    "group norm": (lambda: model(lambda x: layers.GroupNormalization(1, name="groups")(x)), "groups"),
    "unit norm over time": (lambda: model(lambda x: layers.UnitNormalization(axis=1, name="unit")(x)), "unit"),
    "a peek ahead": (lambda: model(lambda x: layers.Dense(2)(Peek(name="peek")(x))), "peek"),
    "a memory hidden in a foreign layer": (
        lambda: model(lambda x: layers.Dense(2)(Hiding(name="hiding")(x))), "hiding",
    ),
    "a look 600 steps back": (lambda: model(_long_ago), "pad"),
    "dropout that stays on": (lambda: model(lambda x: layers.Dropout(0.5, name="noise")(x, training=True)), "noise"),
}  # fmt: skip


@keras.saving.register_keras_serializable(package="zoo")
class Counting(layers.Layer):
    """A foreign layer that counts its calls in a variable, for all clients alike, too slowly to show in a number."""

    def build(self, shape: Any) -> None:
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x: Any) -> Any:
        self.count.assign_add(1e-9)
        return x + self.count


def _deaf(x: Any) -> Any:
    """Saturated far from its inputs, so that its look over all of time can't be seen."""
    h = layers.Dense(8, activation="tanh")(layers.Normalization(mean=[1e3, 1e3], variance=[9.0, 9.0])(x))
    return layers.Dense(2)(h - ops.mean(h, axis=1, keepdims=True))


VACUOUS: dict[str, Callable[[], keras.Model]] = {
    "saturated": lambda: model(_deaf),
    "tiny": lambda: model(lambda x: 1e-6 * layers.Dense(2)(x - ops.mean(x, axis=1, keepdims=True))),
}
MIXING: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "a mean over the batch": (
        lambda: model(lambda x: layers.Dense(2)(layers.LSTM(3, **RNN)(x - ops.mean(x, axis=0, keepdims=True)))), "mean",
    ),
    "unit norm over the batch": (
        lambda: model(lambda x: layers.Dense(2)(layers.UnitNormalization(axis=0, name="unit")(x))), "unit",
    ),
    "the batch reversed": (lambda: model(lambda x: layers.Dense(2)(ops.flip(x, axis=0))), "flip"),
    "a mean over the batch, the last step alone": (
        lambda: model(lambda x: layers.Dense(2)(layers.LSTM(3)(x - ops.mean(x, axis=0, keepdims=True)))), "mean",
    ),
}  # fmt: skip


def walk_like(rng: np.random.Generator, batch: int, length: int, n_features: int = 2) -> Any:
    """Random walks (batch, length, F) float32 that stay near zero."""
    return np.clip(np.cumsum(rng.normal(0, 0.3, (batch, length, n_features)), axis=1), -3, 3).astype(np.float32)
