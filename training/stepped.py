"""A walked model with its output in the bundle's shape, as compiled TensorFlow functions.

Ours answers (B, T, K, 1 + Q). A user's model may answer (B, T, K) or, having dropped the time axis, (B, K): its
output is then the point forecast alone, Q = 0.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.refusals import ExportRefused, brief
from training.walk import FAILURES, Walk


def compiled(call: Any, signature: list[Any]) -> Any:
    """A TensorFlow function. Keras layers need no AutoGraph, and reading their source takes seconds."""
    return tf.function(call, input_signature=signature, autograph=False)


class Guarded:
    """A compiled function of a user's graph: what fails in it is refused, not a traceback."""

    def __init__(self, call: Any, signature: list[Any]) -> None:
        self._function = compiled(call, signature)

    def __call__(self, *args: Any) -> Any:
        """What the function answers. ExportRefused if it fails."""
        try:
            return self._function(*args)
        except FAILURES as exc:
            raise ExportRefused("", f"the model fails on a series of its probe: {brief(exc)}") from exc

    def get_concrete_function(self) -> Any:
        """What a SavedModel keeps. ExportRefused if it can't be traced."""
        try:
            return self._function.get_concrete_function()
        except FAILURES as exc:
            raise ExportRefused("", f"the model can't be traced: {brief(exc)}") from exc


class Stepped:
    """The functions that a bundle's signatures are made of. K targets, Q quantiles, S floats of state.

    ``step``: x (B, F), state (B, S) -> y (B, K, 1 + Q), state (B, S).
    ``sequence``: x (B, T, F), state (B, S) -> y (B, T, K, 1 + Q), state (B, S).
    ``stepwise``: the same as ``sequence``, but one `step` after another whatever the model.
    ``gates``: x (B, F), state (B, S) -> {name: (B, gates * units)}.
    ``whole``: x (B, T, F) -> the offline pass of the model as it is, (B, T, K, 1 + Q), or (B, 1, K, 1 + Q) of the
    last step alone if the model has dropped the time axis (`timed` False). All float32.

    Raises ExportRefused for what can't be stepped or answers another shape.
    """

    def __init__(self, model: keras.Model, n_targets: int, n_quantiles: int) -> None:
        self.walk = Walk(model)
        self.n_targets, self.n_columns = n_targets, 1 + n_quantiles
        self.timed = self._has_time()
        f, s = self.walk.n_features, self.walk.width
        row = tf.TensorSpec([None, f], tf.float32, "x")
        rows = tf.TensorSpec([None, None, f], tf.float32, "x")
        state = tf.TensorSpec([None, s], tf.float32, "state")
        self.step = Guarded(self._step, [row, state])
        self.gates = Guarded(self._gates, [row, state])
        self.sequence = Guarded(self._sequence, [rows, state])
        self.stepwise = Guarded(self._loop, [rows, state])
        self.window = Guarded(self._window, [rows])
        self.whole = Guarded(self._whole, [rows])

    def fresh(self, batch: int) -> Any:
        """The fresh state of `batch` clients, (batch, S)."""
        return tf.constant(np.tile(self.walk.initial_state, (batch, 1)))

    def _has_time(self) -> bool:
        shapes = []
        for length in (3, 5):
            x = tf.ones((1, length, self.walk.n_features))
            shapes.append(tuple(self.walk.whole(x).shape))
        timed = len(shapes[0]) >= 3 and (shapes[0][1], shapes[1][1]) == (3, 5)
        tail = shapes[0][2:] if timed else shapes[0][1:]
        full, plain = (self.n_targets, self.n_columns), (self.n_targets,)
        if tail != full and not (tail == plain and self.n_columns == 1):
            time = "time, " if timed else ""
            want = f"(batch, {time}{self.n_targets})" if self.n_columns == 1 else f"(batch, {time}{full[0]}, {full[1]})"
            got = f"(batch, {time}{', '.join(map(str, tail))})"
            raise ExportRefused("", f"the model answers {got}, but its {self.n_targets} target(s) and "
                                    f"{self.n_columns - 1} quantile(s) make {want}")  # fmt: skip
        return timed

    def _step(self, x: Any, state: Any) -> dict[str, Any]:
        y, after = self.walk.step(x, state)
        return {"y": tf.reshape(y, (-1, self.n_targets, self.n_columns)), "state": after}

    def _gates(self, x: Any, state: Any) -> dict[str, Any]:
        return self.walk.gates(x, state)

    def _sequence(self, x: Any, state: Any) -> dict[str, Any]:
        if not self.timed:
            return self._loop(x, state)
        y, after = self.walk.sequence(x, state)
        shape = (tf.shape(x)[0], tf.shape(x)[1], self.n_targets, self.n_columns)
        return {"y": tf.reshape(y, shape), "state": after}

    def _loop(self, x: Any, state: Any) -> dict[str, Any]:
        length = tf.shape(x)[1]
        ys = tf.TensorArray(tf.float32, size=length, element_shape=(None, self.n_targets, self.n_columns))

        def body(t: Any, state: Any, ys: Any) -> tuple[Any, Any, Any]:
            out = self._step(x[:, t], state)
            return t + 1, out["state"], ys.write(t, out["y"])

        _, state, ys = tf.while_loop(lambda t, *_: t < length, body, (0, state, ys))
        return {"y": tf.transpose(ys.stack(), (1, 0, 2, 3)), "state": state}

    def _window(self, x: Any) -> dict[str, Any]:
        fresh = tf.tile(tf.constant(self.walk.initial_state[None]), (tf.shape(x)[0], 1))
        return {"y": self._sequence(x, fresh)["y"][:, -1]}

    def _whole(self, x: Any) -> Any:
        length = tf.shape(x)[1] if self.timed else 1
        return tf.reshape(self.walk.whole(x), (tf.shape(x)[0], length, self.n_targets, self.n_columns))
