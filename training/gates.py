"""What a recurrent cell's gates do while one observation is absorbed, computed from the cell's own weights.

LSTM: input, forget, candidate, output (i, f, c, o; Keras' order of z = x W + h U + b). GRU: update, reset,
candidate (z, r, h). SimpleRNN has no gate: its new hidden value stands for it (h). Other cells, such as
preprocessing, have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

NAMES: dict[type, tuple[str, ...]] = {
    keras.layers.LSTMCell: ("i", "f", "c", "o"),
    keras.layers.GRUCell: ("z", "r", "h"),
    keras.layers.SimpleRNNCell: ("h",),
}


@dataclass(frozen=True, slots=True)
class GatedCell:
    """A cell that has gates, and their names in the order of its output."""

    cell: Any
    names: tuple[str, ...]
    units: int


def gated_cells(cell: Any) -> list[GatedCell]:
    """The cells with gates inside `cell`: itself, or those of a StackedRNNCells from the bottom up."""
    cells = cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else [cell]
    return [GatedCell(c, NAMES[type(c)], c.units) for c in cells if type(c) in NAMES]


def gate_values(cell: Any, x: Any, states: Any) -> list[Any]:
    """Activations of each of `gated_cells(cell)`: (B, len(names) * units). ``x`` (B, D), `states` as the cell takes."""
    if not isinstance(cell, keras.layers.StackedRNNCells):
        return [_values(cell, x, states)] if type(cell) in NAMES else []
    found = []
    for inner, held in zip(cell.cells, states, strict=True):
        held = list(held) if keras.tree.is_nested(held) else [held]
        if type(inner) in NAMES:
            found.append(_values(inner, x, held))
        x, _ = inner(x, held)
    return found


def _values(cell: Any, x: Any, states: Any) -> Any:
    if isinstance(cell, keras.layers.LSTMCell):
        z = ops.matmul(x, cell.kernel) + ops.matmul(states[0], cell.recurrent_kernel)
        i, f, c, o = ops.split(z + cell.bias if cell.use_bias else z, 4, axis=-1)
        squash = cell.recurrent_activation
        return ops.concatenate([squash(i), squash(f), cell.activation(c), squash(o)], axis=-1)
    if isinstance(cell, keras.layers.GRUCell):
        return _gru(cell, x, states[0])
    return cell(x, states)[0]


def _gru(cell: Any, x: Any, h: Any) -> Any:
    u = cell.units
    below, above = 0.0, 0.0
    if cell.use_bias:
        below, above = (cell.bias[0], cell.bias[1]) if cell.reset_after else (cell.bias, 0.0)
    z_x, r_x, h_x = ops.split(ops.matmul(x, cell.kernel) + below, 3, axis=-1)
    if cell.reset_after:
        z_h, r_h, h_h = ops.split(ops.matmul(h, cell.recurrent_kernel) + above, 3, axis=-1)
        z, r = cell.recurrent_activation(z_x + z_h), cell.recurrent_activation(r_x + r_h)
        candidate = cell.activation(h_x + r * h_h)
    else:
        z_h, r_h = ops.split(ops.matmul(h, cell.recurrent_kernel[:, : 2 * u]), 2, axis=-1)
        z, r = cell.recurrent_activation(z_x + z_h), cell.recurrent_activation(r_x + r_h)
        candidate = cell.activation(h_x + ops.matmul(r * h, cell.recurrent_kernel[:, 2 * u :]))
    return ops.concatenate([z, r, candidate], axis=-1)
