"""TensorFlow: a bundle's SavedModel itself, for what LiteRT can't run. Importing it takes seconds and 500 MB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from service.core.errors import BundleInvalid
from service.core.types import FloatArray, ModelSpec


class TensorFlowEngine:
    """Engine over the SavedModel's signatures `step` and `gates`; any batch size, any thread."""

    def __init__(self, bundle: Path, spec: ModelSpec) -> None:
        """BundleInvalid if the SavedModel does not load or lacks a signature."""
        self._spec = spec
        try:
            self._loaded = tf.saved_model.load(str(bundle))
            self._step = self._loaded.signatures["step"]
            self._walk = _looped(self._step)
            self._gates = self._loaded.signatures["gates"] if spec.gates else None
        except (OSError, KeyError, ValueError, tf.errors.OpError) as exc:
            raise BundleInvalid(f"the SavedModel of {spec.name} {spec.version} does not load: {exc}") from exc

    def step(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Engine."""
        out = self._step(x=tf.constant(x), state=tf.constant(state))
        return out["y"].numpy(), out["state"].numpy()

    def walk(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Walks."""
        y, following = self._walk(tf.constant(x), tf.constant(state))
        return y.numpy(), following.numpy()

    def gates(self, x: FloatArray, state: FloatArray) -> Sequence[FloatArray]:
        """See Engine."""
        if self._gates is None:
            return []
        out = self._gates(x=tf.constant(x), state=tf.constant(state))
        return [out[gate.output].numpy() for gate in self._spec.gates]

    def close(self) -> None:
        """See Engine."""


def _looped(step: Any) -> Any:
    """`step` called for one observation of x (T, F) after the other. The signature `sequence` would be no faster, and
    multiplies matrices of T rows, which rounds otherwise than T matrices of one."""

    def run(x: Any, state: Any) -> Any:
        length = tf.shape(x)[0]

        def body(t: Any, state: Any, ys: Any) -> tuple[Any, Any, Any]:
            out = step(x=x[t : t + 1], state=state)
            return t + 1, tf.ensure_shape(out["state"], state.shape), ys.write(t, out["y"][0])

        ys = tf.TensorArray(tf.float32, size=length)
        _, following, ys = tf.while_loop(lambda t, *_: t < length, body, (0, state, ys))
        return ys.stack(), following

    inputs = step.structured_input_signature[1]
    features, width = inputs["x"].shape[1], inputs["state"].shape[1]
    signature = (tf.TensorSpec((None, features), tf.float32), tf.TensorSpec((1, width), tf.float32))
    return tf.function(run, signature, autograph=False)
