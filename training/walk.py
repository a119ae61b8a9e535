"""A causal Keras model as a step: its graph walked with explicit state instead of a time axis.

A functional model over (batch, time, features) is executed node by node. At each `keras.layers.RNN` the layer's
*cell* is called with its slice of one flat float32 state; a causal `Conv1D` gets a ring of its last inputs; of a
`TimeDistributed` the layer inside is called, on one row per step; every other layer is called as it is, on a time
axis of length 1. Nested models are walked in place, and state belongs to
a node of the graph, not to a layer. What such a walk would silently get wrong is refused by name where the graph
shows it (`training.allowed`), and found by number otherwise (`training.proofs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from training.allowed import check_ends, check_model, has_graph
from training.gates import gate_values
from training.layout import Layout, Slot, in_order, node_keys, ring_length
from training.refusals import ExportRefused, brief

# what Keras, TensorFlow and a layer's own code raise when a call can't be made
FAILURES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError, tf.errors.OpError)
Call = Callable[[str, Any, tuple[Any, ...], dict[str, Any]], Any]


class Walk:
    """A model opened for stepping. S, the width of the flat state, is `width`.

    Raises ExportRefused, naming the layer and the reason, for a graph that can't be stepped one observation at
    a time. S is at least 1: a model without memory carries one float that is always 0, because LiteRT takes no
    tensors without elements. `unlisted` names the calls outside the allow-list, which only the proofs vouch for.
    """

    def __init__(self, model: keras.Model) -> None:
        check_ends(model)
        self.model = model
        self.graph = check_model(model)
        self.n_features = int(self.graph.inputs[0].shape[-1])
        layout = Layout(self.graph)
        self.slots, self.gate_outputs, self.unlisted = layout.slots, layout.gate_outputs, layout.unlisted
        self.initial_state = layout.initial_state
        self.width = len(self.initial_state)

    def step(self, x: Any, state: Any, tap: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """One observation: ``x`` (B, F), ``state`` (B, S) -> the model's output at T = 1, next state (B, S).

        `tap`, if given, is filled with each node's output by key.
        """
        new: dict[str, list[Any]] = {}
        y = self._run(self.graph, [ops.expand_dims(x, 1)], "", self._stepping(state, new), tap)
        return y[0], self._join(state, new)

    def gates(self, x: Any, state: Any) -> dict[str, Any]:
        """Gate activations while ``x`` (B, F) is absorbed under ``state`` (B, S): each (B, n_gates * units)."""
        found: dict[str, Any] = {}
        stepping = self._stepping(state, {})

        def call(key: str, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self.gate_outputs.get(key):
                values = gate_values(layer.cell, _only_step(_first(args, kwargs)), self._states(self.slots[key], state))
                found.update((entry.output, v) for entry, v in zip(self.gate_outputs[key], values, strict=True))
            return stepping(key, layer, args, kwargs)

        self._run(self.graph, [ops.expand_dims(x, 1)], "", call, None)
        return found

    def sequence(self, x: Any, state: Any) -> tuple[Any, Any]:
        """Many observations: ``x`` (B, T, F), ``state`` (B, S) -> the model's output over T, next state (B, S).

        Only right for a model whose output has the time axis.
        """
        new: dict[str, list[Any]] = {}

        def call(key: str, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            slot = self.slots.get(key)
            if slot is None:
                return _call(key, layer, args, kwargs)
            inputs = _first(args, kwargs)
            if isinstance(layer, keras.layers.RNN):
                outputs, new[key] = _over_time(layer, inputs, self._states(slot, state))
                return outputs
            ring, padded = self._padded(slot, layer, inputs, state)
            new[key] = [ops.reshape(padded[:, -ring:, :], (-1, slot.width))]
            return layer(padded)[:, ring:, :]

        y = self._run(self.graph, [x], "", call, None)
        return y[0], self._join(state, new)

    def whole(self, x: Any, tap: dict[str, Any] | None = None) -> Any:
        """The plain offline pass, every layer as it is, whatever length the model's Input was made for.

        ``x`` (B, T, F). `tap`, if given, is filled with each node's output by key: how a culprit is found.
        """
        return self._run(self.graph, [x], "", _call, tap)[0]

    def node_keys(self) -> list[str]:
        """Every computing node's key, in walking order."""
        return list(node_keys(self.graph))

    # -- the walk itself ---------------------------------------------------------------------------------------

    def _run(self, graph: Any, inputs: list[Any], path: str, call: Call, tap: dict[str, Any] | None) -> list[Any]:
        tensors = {id(symbol): value for symbol, value in zip(graph.inputs, inputs, strict=True)}
        for key, node in in_order(graph, path):
            args, kwargs = node.arguments.fill_in(tensors)
            if has_graph(node.operation):
                inner = [tensors[id(symbol)] for symbol in node.input_tensors]
                outputs = self._run(check_model(node.operation), inner, key + "/", call, tap)
            else:
                try:
                    outputs = keras.tree.flatten(call(key, node.operation, args, kwargs))
                except FAILURES as exc:
                    reason = f"it has to take a series of any length, of one step too, but fails: {brief(exc)}"
                    raise ExportRefused(key, reason) from exc
            for symbol, value in zip(node.outputs, outputs, strict=True):
                tensors[id(symbol)] = value
            if tap is not None:
                tap[key] = outputs[0]
        return [tensors[id(symbol)] for symbol in graph.outputs]

    def _stepping(self, state: Any, new: dict[str, list[Any]]) -> Call:
        def call(key: str, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            slot = self.slots.get(key)
            if slot is None:
                if type(layer) is keras.layers.Dense and len(_first(args, kwargs).shape) == 3:
                    return ops.expand_dims(layer(_only_step(_first(args, kwargs))), 1)
                return _call(key, layer, args, kwargs)
            inputs = _first(args, kwargs)
            if isinstance(layer, keras.layers.RNN):
                training = {"training": False} if getattr(layer.cell, "_call_has_training_arg", False) else {}
                y, after = layer.cell(_only_step(inputs), self._states(slot, state), **training)
                new[key] = keras.tree.flatten(after)
                y = ops.expand_dims(y, 1) if layer.return_sequences else y
                return [y, *new[key]] if layer.return_state else y
            _, padded = self._padded(slot, layer, inputs, state)
            new[key] = [ops.reshape(padded[:, 1:, :], (-1, slot.width))]
            return layer(padded)[:, -1:, :]

        return call

    def _states(self, slot: Slot, state: Any) -> Any:
        parts, at = [], slot.offset
        for size in slot.sizes:
            parts.append(state[:, at : at + size])
            at += size
        return keras.tree.pack_sequence_as(slot.structure, parts)

    def _padded(self, slot: Slot, layer: Any, inputs: Any, state: Any) -> tuple[int, Any]:
        """Length of a convolution's ring, and its inputs (B, T, D) behind that ring."""
        length = ring_length(layer)
        ring = ops.reshape(state[:, slot.offset : slot.offset + slot.width], (-1, length, slot.width // length))
        return length, ops.concatenate([ring, inputs], axis=1)

    def _join(self, state: Any, new: dict[str, list[Any]]) -> Any:
        parts = [part for key in self.slots for part in new[key]]
        if not parts:
            return ops.zeros_like(state)
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The tensor a layer was called on, by position or by name."""
    return args[0] if args else next(value for value in kwargs.values() if value is not None)


def _only_step(inputs: Any) -> Any:
    """``inputs`` (B, 1, …) without the time axis. LiteRT's fast kernels (XNNPACK) take a reshape, but no slice that
    drops an axis, and each operation that they don't take costs the way there and back: a quarter of a step, in all."""
    shape = inputs.shape[2:]
    return inputs[:, 0] if None in shape else ops.reshape(inputs, (-1, *shape))


def _call(key: str, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call without state: the layer as it is, but what TimeDistributed wraps gets (batch * time, ...) at once.

    In a graph whose length is open, TimeDistributed itself maps its layer over what it takes for time and fails.
    """
    if not isinstance(layer, keras.layers.TimeDistributed):
        return layer(*args, **kwargs)
    inputs, inner = _first(args, kwargs), layer.layer
    training = {"training": kwargs.get("training", False)} if inner._call_has_training_arg else {}
    shape = ops.shape(inputs)
    y = inner(ops.reshape(inputs, (-1, *shape[2:])), **training)
    return ops.reshape(y, (-1, shape[1], *ops.shape(y)[1:]))


def _over_time(layer: Any, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
    """A recurrent layer over all of `inputs` from `states`: what it would output, and its flat new states."""
    asked = layer.return_state
    layer.return_state = True
    try:
        y, *after = layer(inputs, initial_state=states)
    finally:
        layer.return_state = asked
    flat = keras.tree.flatten(after)
    return ([y, *flat] if asked else y), flat
