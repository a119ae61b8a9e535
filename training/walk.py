"""A causal Keras model as a step: its graph walked with explicit state instead of a time axis.

A functional model over (batch, time, features) is executed node by node. At each `keras.layers.RNN` the layer's
*cell* is called with its slice of one flat float32 state; a causal `Conv1D` gets a ring of its last inputs; every
other layer is called as it is, on a time axis of length 1. Nested models are walked in place, and state belongs to
a node of the graph, not to a layer. What such a walk would silently get wrong is refused by name where the graph
shows it (`training.allowed`), and found by number otherwise (`training.proofs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.allowed import check_ends, check_model, check_node, has_graph, is_listed
from training.gates import gate_values, gated_cells
from training.refusals import ExportRefused

Call = Callable[[str, Any, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """The part of the flat state that belongs to one node: `sizes` floats per tensor from `offset` on."""

    key: str
    offset: int
    sizes: tuple[int, ...]
    initial: NDArray[np.float32]
    structure: Any = field(repr=False, compare=False)

    @property
    def width(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True, slots=True)
class GateOutput:
    """One recurrent layer's entry in the `gates` signature."""

    output: str
    layer: str
    cell: str
    names: tuple[str, ...]
    units: int


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
        self.slots: dict[str, Slot] = {}
        self.gate_outputs: dict[str, list[GateOutput]] = {}
        self.unlisted: list[str] = []
        self._owners: dict[int, str] = {}
        self._survey(self.graph, "", [True])
        pieces = [slot.initial for slot in self.slots.values()]
        self.initial_state: NDArray[np.float32] = np.concatenate(pieces) if pieces else np.zeros(1, np.float32)
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
                values = gate_values(layer.cell, _first(args, kwargs)[:, 0], self._states(self.slots[key], state))
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
                return layer(*args, **kwargs)
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
        return self._run(self.graph, [x], "", lambda key, layer, args, kwargs: layer(*args, **kwargs), tap)[0]

    def node_keys(self) -> list[str]:
        """Every computing node's key, in walking order."""
        return list(_keys(self.graph, ""))

    # -- the walk itself ---------------------------------------------------------------------------------------

    def _run(self, graph: Any, inputs: list[Any], path: str, call: Call, tap: dict[str, Any] | None) -> list[Any]:
        tensors = {id(symbol): value for symbol, value in zip(graph.inputs, inputs, strict=True)}
        for key, node in _in_order(graph, path):
            args, kwargs = node.arguments.fill_in(tensors)
            if has_graph(node.operation):
                inner = [tensors[id(symbol)] for symbol in node.input_tensors]
                outputs = self._run(check_model(node.operation), inner, key + "/", call, tap)
            else:
                outputs = keras.tree.flatten(call(key, node.operation, args, kwargs))
            for symbol, value in zip(node.outputs, outputs, strict=True):
                tensors[id(symbol)] = value
            if tap is not None:
                tap[key] = outputs[0]
        return [tensors[id(symbol)] for symbol in graph.outputs]

    def _stepping(self, state: Any, new: dict[str, list[Any]]) -> Call:
        def call(key: str, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            slot = self.slots.get(key)
            if slot is None:
                return layer(*args, **kwargs)
            inputs = _first(args, kwargs)
            if isinstance(layer, keras.layers.RNN):
                training = {"training": False} if getattr(layer.cell, "_call_has_training_arg", False) else {}
                y, after = layer.cell(inputs[:, 0], self._states(slot, state), **training)
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
        length = _ring_length(layer)
        ring = ops.reshape(state[:, slot.offset : slot.offset + slot.width], (-1, length, slot.width // length))
        return length, ops.concatenate([ring, inputs], axis=1)

    def _join(self, state: Any, new: dict[str, list[Any]]) -> Any:
        parts = [part for key in self.slots for part in new[key]]
        if not parts:
            return ops.zeros_like(state)
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    # -- what the graph holds ----------------------------------------------------------------------------------

    def _survey(self, graph: Any, path: str, timed: list[bool]) -> list[bool]:
        """Check every node and lay out the state; `timed` says which inputs still have the time axis."""
        marks = {id(symbol): mark for symbol, mark in zip(graph.inputs, timed, strict=True)}
        for key, node in _in_order(graph, path):
            layer = node.operation
            before = [marks[id(symbol)] for symbol in node.input_tensors]
            if has_graph(layer):
                after = self._survey(check_model(layer), key + "/", before)
            else:
                check_node(node, key, timed=any(before))
                if not is_listed(layer):
                    self.unlisted.append(key)
                after = [any(before) and len(symbol.shape) >= 3 for symbol in node.outputs]
                if isinstance(layer, keras.layers.RNN):
                    after[0] = layer.return_sequences
                    self._add_recurrent(layer, key)
                elif isinstance(layer, keras.layers.Conv1D) and any(before) and _ring_length(layer):
                    width = _ring_length(layer) * layer.kernel.shape[1] * layer.groups
                    self._add(key, (width,), np.zeros(width, np.float32), [0])
            marks.update({id(symbol): mark for symbol, mark in zip(node.outputs, after, strict=True)})
        return [marks[id(symbol)] for symbol in graph.outputs]

    def _add_recurrent(self, layer: Any, key: str) -> None:
        if id(layer) in self._owners:
            where = self._owners[id(layer)]
            raise ExportRefused(key, f"this recurrent layer is also used at {where!r}; give each use its own layer")
        self._owners[id(layer)] = key
        structure = layer.get_initial_state(1)
        parts = [np.asarray(ops.convert_to_numpy(part), np.float32) for part in keras.tree.flatten(structure)]
        if any(part.ndim != 2 or part.shape[0] != 1 for part in parts):
            raise ExportRefused(key, "its cell's state is not a row of numbers per client, only those can be kept")
        initial = np.concatenate([part[0] for part in parts])
        if not np.isfinite(initial).all():
            raise ExportRefused(key, "its cell's initial state is not finite")
        self._add(key, tuple(part.shape[1] for part in parts), initial, structure)
        count = sum(len(outputs) for outputs in self.gate_outputs.values())
        self.gate_outputs[key] = [
            GateOutput(
                f"gates_{count + i}",
                key if gated.cell is layer.cell else f"{key}/{gated.cell.name}",
                type(gated.cell).__name__.removesuffix("Cell"),
                gated.names,
                gated.units,
            )
            for i, gated in enumerate(gated_cells(layer.cell))
        ]

    def _add(self, key: str, sizes: tuple[int, ...], initial: NDArray[np.float32], structure: Any) -> None:
        offset = sum(slot.width for slot in self.slots.values())
        self.slots[key] = Slot(key, offset, sizes, initial, structure)


def _in_order(graph: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The computing nodes of a functional graph with their keys, each after the nodes it needs."""
    seen: dict[str, int] = {}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.operation or node.is_input:
                continue
            name = node.operation.name
            count = seen[name] = seen.get(name, 0) + 1
            yield f"{path}{name}" + (f"#{count}" if count > 1 else ""), node


def _keys(graph: Any, path: str) -> Iterator[str]:
    for key, node in _in_order(graph, path):
        if has_graph(node.operation):
            yield from _keys(check_model(node.operation), key + "/")
        yield key


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The tensor a layer was called on, by position or by name."""
    return args[0] if args else next(value for value in kwargs.values() if value is not None)


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


def _ring_length(layer: Any) -> int:
    """How many past inputs a causal convolution needs."""
    return int((layer.kernel_size[0] - 1) * layer.dilation_rate[0]) if layer.padding == "causal" else 0
