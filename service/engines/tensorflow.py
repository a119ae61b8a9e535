"""TensorFlow: a bundle's SavedModel itself, for what LiteRT can't run. Importing it takes seconds and 500 MB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
            self._gates = self._loaded.signatures["gates"] if spec.gates else None
        except (OSError, KeyError, ValueError, tf.errors.OpError) as exc:
            raise BundleInvalid(f"the SavedModel of {spec.name} {spec.version} does not load: {exc}") from exc

    def step(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Engine."""
        out = self._step(x=tf.constant(x), state=tf.constant(state))
        return out["y"].numpy(), out["state"].numpy()

    def gates(self, x: FloatArray, state: FloatArray) -> Sequence[FloatArray]:
        """See Engine."""
        if self._gates is None:
            return []
        out = self._gates(x=tf.constant(x), state=tf.constant(state))
        return [out[gate.output].numpy() for gate in self._spec.gates]

    def close(self) -> None:
        """See Engine."""
