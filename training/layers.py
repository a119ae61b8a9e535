"""Preprocessing with memory, as an RNN cell: raw observations in, what the network wants to see out.

Everything a cell remembers fades: exponentially weighted, no counts and no sums, so that a state can be rebuilt from a
client's recent observations and float32 never runs out. From a fresh state the first step is sane: no change, every
running mean at the first value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def _row(values: Sequence[float]) -> Any:
    return ops.convert_to_tensor([float(value) for value in values], dtype="float32")


def logarithms(x: Any, floors: Sequence[float | None]) -> Any:
    """``x`` (…, F) with the logarithm of max(x, floor) wherever a feature has a floor, the rest as it is."""
    if all(floor is None for floor in floors):
        return x
    logged = ops.log(ops.maximum(x, _row([1.0 if floor is None else floor for floor in floors])))
    if None not in floors:
        return logged
    chosen = _row([0.0 if floor is None else 1.0 for floor in floors])
    return chosen * logged + (1.0 - chosen) * x


@keras.saving.register_keras_serializable(package="recurve")
class Standardise(keras.layers.Layer):  # type: ignore[misc]
    """Memory-less preprocessing: ``x`` (B, T, F) raw -> (z - mean) / deviation, z the value or its logarithm."""

    def __init__(
        self, means: Sequence[float], deviations: Sequence[float], floors: Sequence[float | None], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.means, self.deviations, self.floors = list(means), list(deviations), list(floors)

    def call(self, x: Any) -> Any:
        return (logarithms(x, self.floors) - _row(self.means)) * _row([1.0 / each for each in self.deviations])

    def get_config(self) -> dict[str, Any]:
        own = {"means": self.means, "deviations": self.deviations, "floors": self.floors}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="recurve")
class PrepareCell(keras.layers.Layer):  # type: ignore[misc]
    """One step of preprocessing: ``x`` (B, F) raw -> (B, D), float32.

    With z the value (its logarithm where `floors` has a floor), the output is, F columns each:
    with `level`, (z - mean) / deviation; the change since the last step in units of `changes`; for every time constant
    in `averages` (steps) the distance of z from its exponentially weighted mean, in units of `changes`; and with
    `running_scale` the logarithm of the exponentially weighted size of the changes, by which changes and distances are
    then divided. That size starts at 1 (the training data's), which fades as data comes in.

    State, flat: last z (F), whether there was a last (1, saturates at once), means (F per time constant), mean squared
    change (F, with `running_scale`).
    """

    def __init__(
        self,
        means: Sequence[float],
        deviations: Sequence[float],
        changes: Sequence[float],
        floors: Sequence[float | None],
        averages: Sequence[float] = (),
        running_scale: float | None = None,
        level: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.means, self.deviations, self.changes = list(means), list(deviations), list(changes)
        self.floors, self.averages, self.running_scale = list(floors), list(averages), running_scale
        self.level = level
        width = len(self.means)
        self.state_size = [width, 1] + [width] * len(self.averages) + ([width] if running_scale else [])
        self.output_size = width * (1 + level + len(self.averages) + (1 if running_scale else 0))

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        """Zeros, but ones for the mean squared change."""
        state = [ops.zeros((batch_size, size), "float32") for size in self.state_size]
        if self.running_scale:
            state[-1] = ops.ones((batch_size, self.state_size[-1]), "float32")
        return state

    def call(self, inputs: Any, states: Sequence[Any], training: bool = False) -> tuple[Any, list[Any]]:
        last, seen, *memory = states
        z = logarithms(inputs, self.floors)
        per_change = _row([1.0 / each for each in self.changes])
        step = seen * (z - last) * per_change
        levels = [(z - _row(self.means)) * _row([1.0 / each for each in self.deviations])] if self.level else []
        state = [z, ops.maximum(seen, 1.0)]  # ones, without asking for a shape: see `heads`
        distances = [step]
        for constant, mean in zip(self.averages, memory, strict=False):
            # from a fresh state (seen = 0) the mean is z itself
            mean = z - seen * (z - mean) * (1.0 - 1.0 / constant)
            distances.append((z - mean) * per_change)
            state.append(mean)
        if not self.running_scale:
            return ops.concatenate([*levels, *distances], axis=-1), state
        square = memory[-1] + seen * (ops.square(step) - memory[-1]) / self.running_scale
        size = ops.sqrt(square + 1e-6)
        distances = [each / size for each in distances]
        return ops.concatenate([*levels, *distances, ops.log(size)], axis=-1), [*state, square]

    def get_config(self) -> dict[str, Any]:
        own = {
            "means": self.means,
            "deviations": self.deviations,
            "changes": self.changes,
            "floors": self.floors,
            "averages": self.averages,
            "running_scale": self.running_scale,
            "level": self.level,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="recurve")
class ChronoBias(keras.initializers.Initializer):  # type: ignore[misc]
    """Gate biases for memories of 2 to `lag` steps (Tallec & Ollivier 2018): keep ~ log U(1, lag - 1), take = -keep.

    For an `lstm` the (4 units,) bias in the order i, f, c, o; for a `gru` the (2, 3 units) biases in the order z, r, h.
    """

    def __init__(self, lag: int, cell: str) -> None:
        if cell not in ("lstm", "gru"):
            raise ValueError(f"chrono biases are for lstm and gru, not {cell!r}")
        if lag < 3:
            raise ValueError(f"chrono lag must be at least 3, not {lag}")
        self.lag, self.cell = lag, cell

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        units = shape[-1] // (4 if self.cell == "lstm" else 3)
        keep = ops.log(keras.random.uniform((units,), 1.0, float(self.lag - 1), dtype="float32"))
        rest = ops.zeros((2 * units,), "float32")
        if self.cell == "lstm":
            return ops.cast(ops.concatenate([-keep, keep, rest]), dtype or "float32")
        bias = ops.stack([ops.concatenate([keep, rest]), ops.zeros((3 * units,), "float32")])
        return ops.cast(bias if len(shape) == 2 else bias[0], dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {"lag": self.lag, "cell": self.cell}
