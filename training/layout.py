"""Where a graph keeps state: every node's place in one flat float32 vector, and the gates it can show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.allowed import check_model, check_node, has_graph, is_listed
from training.gates import gated_cells
from training.refusals import ExportRefused


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


class Layout:
    """The state of a functional graph, laid out in walking order.

    Raises ExportRefused for a node that can't be stepped (`training.allowed`), a recurrent layer that is used twice
    and a cell whose state is not a row of finite numbers. `slots` and `gate_outputs` are by node key; `unlisted` names
    the calls outside the allow-list; `initial_state` is (S,) float32, one idle float for a graph without memory.
    """

    def __init__(self, graph: Any) -> None:
        self.slots: dict[str, Slot] = {}
        self.gate_outputs: dict[str, list[GateOutput]] = {}
        self.unlisted: list[str] = []
        self._owners: dict[int, str] = {}
        self._survey(graph, "", [True])
        pieces = [slot.initial for slot in self.slots.values()]
        self.initial_state: NDArray[np.float32] = np.concatenate(pieces) if pieces else np.zeros(1, np.float32)

    def _survey(self, graph: Any, path: str, timed: list[bool]) -> list[bool]:
        """Check every node and lay out the state; `timed` says which inputs still have the time axis."""
        marks = {id(symbol): mark for symbol, mark in zip(graph.inputs, timed, strict=True)}
        for key, node in in_order(graph, path):
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
                elif isinstance(layer, keras.layers.Conv1D) and any(before) and ring_length(layer):
                    width = ring_length(layer) * layer.kernel.shape[1] * layer.groups
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


def in_order(graph: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The computing nodes of a functional graph with their keys, each after the nodes it needs."""
    seen: dict[str, int] = {}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.operation or node.is_input:
                continue
            name = node.operation.name
            count = seen[name] = seen.get(name, 0) + 1
            yield f"{path}{name}" + (f"#{count}" if count > 1 else ""), node


def node_keys(graph: Any, path: str = "") -> Iterator[str]:
    """Every computing node's key, nested models' nodes before their model's, in walking order."""
    for key, node in in_order(graph, path):
        if has_graph(node.operation):
            yield from node_keys(check_model(node.operation), key + "/")
        yield key


def ring_length(layer: Any) -> int:
    """How many past inputs a causal convolution needs."""
    return int((layer.kernel_size[0] - 1) * layer.dilation_rate[0]) if layer.padding == "causal" else 0
