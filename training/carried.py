"""The trainable middle of one of our networks, run over chunks with its state carried from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class Carried:
    """From prepared inputs to the head's numbers, as the network computes them, but with the state in the open.

    Preprocessing has nothing to learn, so training runs it once over a whole series and then only this: memory and
    head. It shares the network's weights; `variables` are those that training may change.
    """

    def __init__(self, network: keras.Model, dropout: float = 0.0, seed: int | None = None) -> None:
        self._dropout = keras.layers.Dropout(dropout, seed=seed)
        self._head = network.get_layer("head")
        self._stages = [_stage(layer) for layer in network.layers if layer.name.startswith("memory_")]
        layers = [layer for layer in network.layers if layer.name.startswith("memory_")] + [self._head]
        self.variables = [each for layer in layers for each in layer.trainable_variables]

    def fresh(self, streams: int) -> list[Any]:
        """The state before a series begins, for `streams` series side by side: a flat list of float32 tensors."""
        return [each for stage in self._stages for each in stage.fresh(streams)]

    def __call__(self, seen: Any, state: Sequence[Any], training: bool = False) -> tuple[Any, list[Any]]:
        """``seen`` (B, T, D) prepared, ``state`` -> ``h`` (B, T, K (1 + Q)) and the state after the last step.

        With `training`, the share `dropout` of what every memory layer passes upwards is hidden; states never are.
        """
        x, rest, after = seen, list(state), []
        for stage in self._stages:
            own, rest = rest[: stage.size], rest[stage.size :]
            x, own = stage(x, own)
            x = self._dropout(x, training=training)
            after += own
        return self._head(ops.concatenate([x, seen], axis=-1)), after


class _Recurrent:
    """A recurrent layer's cell, looped over the chunk from a given state."""

    def __init__(self, layer: keras.layers.RNN) -> None:
        self._layer = keras.layers.RNN(layer.cell, return_sequences=True, return_state=True)
        self._cell = layer.cell
        self.size = 2 if isinstance(layer, keras.layers.LSTM) else 1

    def fresh(self, streams: int) -> list[Any]:
        state = self._cell.get_initial_state(batch_size=streams)
        return list(state) if isinstance(state, (list, tuple)) else [state]

    def __call__(self, x: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        y, *after = self._layer(x, initial_state=state)
        return y, after


class _Lagged:
    """A causal convolution, whose state is its last inputs: zeros before the series begins, as its padding is."""

    size = 1

    def __init__(self, layer: keras.layers.Conv1D) -> None:
        self._layer, self._kept = layer, layer.kernel_size[0] - 1

    def fresh(self, streams: int) -> list[Any]:
        return [ops.zeros((streams, self._kept, self._layer.kernel.shape[1]), "float32")]

    def __call__(self, x: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        longer = ops.concatenate([state[0], x], axis=1)
        return self._layer(longer)[:, self._kept :], [longer[:, -self._kept :]]


class _Memoryless:
    """A layer that sees one step at a time."""

    size = 0

    def __init__(self, layer: keras.layers.Layer) -> None:
        self._layer = layer

    def fresh(self, streams: int) -> list[Any]:
        return []

    def __call__(self, x: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        return self._layer(x), []


def _stage(layer: keras.layers.Layer) -> _Recurrent | _Lagged | _Memoryless:
    if isinstance(layer, keras.layers.RNN):
        return _Recurrent(layer)
    return _Lagged(layer) if isinstance(layer, keras.layers.Conv1D) else _Memoryless(layer)
