"""The output head: from the network's numbers to a point forecast and quantiles in raw units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from training.layers import logarithms


@keras.saving.register_keras_serializable(package="recurve")
class Forecast(keras.layers.Layer):  # type: ignore[misc]
    """``[h (B, T, K (1 + Q)), x (B, T, F) raw]`` -> ``y`` (B, T, K, 1 + Q) raw; a third input carries running scales.

    Residual: the network's numbers are changes from the last value (of its logarithm, where `floors` has a floor), in
    units of `changes`. Column 0 is the point forecast. Columns 1..Q are quantiles that cannot cross: the middle one is
    free, its neighbours lie a softplus away each, all distances multiplied by the target's `spread` weight (K,), which
    training sets to make the outer interval cover what it says. `observed` are the targets' feature columns.
    With `running_scale`, the third input's last F columns are logarithms of the scale that changes are measured in.
    """

    def __init__(
        self,
        observed: Sequence[int],
        changes: Sequence[float],
        floors: Sequence[float | None],
        quantiles: int,
        running_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.observed, self.changes, self.floors = list(observed), list(changes), list(floors)
        self.quantiles, self.running_scale = quantiles, running_scale

    def build(self, input_shape: Any) -> None:
        self.spread = self.add_weight(
            name="spread", shape=(len(self.observed),), initializer="ones", trainable=False, dtype="float32"
        )

    def normal(self, h: Any) -> Any:
        """``h`` (…, K (1 + Q)) -> (…, K, 1 + Q): point and rising quantiles, still in units of `changes`."""
        h = ops.reshape(h, (*_known(ops.shape(h)[:-1]), len(self.observed), 1 + self.quantiles))
        if self.quantiles == 0:
            return h
        middle, steps = (self.quantiles - 1) // 2, ops.softplus(_columns(h, 2)) * self.spread[:, None]
        rising = [_columns(h, 1, 2)]
        # one sum after the other, not a matrix of sums: what is not negative, added, never rounds to something smaller
        for index in range(middle, self.quantiles - 1):
            rising.append(rising[-1] + _columns(steps, index, index + 1))
        for index in range(middle - 1, -1, -1):
            rising.insert(0, rising[0] - _columns(steps, index, index + 1))
        return ops.concatenate([_columns(h, 0, 1), *rising], axis=-1)

    def call(self, inputs: Sequence[Any]) -> Any:
        h, x, *scales = inputs
        scale = ops.convert_to_tensor(np.asarray(self.changes, np.float32))
        if self.running_scale:
            scale = scale * ops.exp(scales[0][..., -x.shape[-1] :])
        return self.raw(self.normal(h), self._targets(logarithms(x, self.floors)), self._targets(scale))

    def raw(self, normal: Any, last: Any, scale: Any) -> Any:
        """``normal`` (…, K, 1 + Q) changes, ``last`` (…, K) last values or their logarithms -> raw units."""
        z = ops.expand_dims(last, -1) + normal * ops.expand_dims(scale, -1)
        floors = [self.floors[index] for index in self.observed]
        if all(floor is None for floor in floors):
            return z
        raised = ops.exp(z)
        if None not in floors:
            return raised
        chosen = ops.convert_to_tensor(np.asarray([[floor is not None] for floor in floors], np.float32))
        return ops.where(chosen > 0, raised, z)

    def _targets(self, values: Any) -> Any:
        """The targets' columns of (…, F)."""
        if self.observed == list(range(values.shape[-1])):
            return values
        return ops.take(values, ops.convert_to_tensor(self.observed, dtype="int32"), axis=-1)

    def get_config(self) -> dict[str, Any]:
        own = {
            "observed": self.observed,
            "changes": self.changes,
            "floors": self.floors,
            "quantiles": self.quantiles,
            "running_scale": self.running_scale,
        }
        return {**super().get_config(), **own}


# How this is written decides which kernels LiteRT runs it with: XNNPACK's take neither shapes that are computed nor
# slices with an ellipsis or a new axis.


def _known(shape: Sequence[Any]) -> list[Any]:
    """A shape to reshape to; -1 for its dimension that is not known before the graph runs, if there is just one."""
    unknown = [at for at, size in enumerate(shape) if not isinstance(size, int)]
    return [-1 if unknown == [at] else size for at, size in enumerate(shape)]


def _columns(values: Any, begin: int, end: int | None = None) -> Any:
    """Columns of the last axis."""
    return values[(*(slice(None),) * (len(values.shape) - 1), slice(begin, end))]
