"""A bundle's exported `step`, run for evaluation: LiteRT, or TensorFlow where the bundle has no step.tflite."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import STEP_TFLITE
from training.quiet import quiet

Array = NDArray[np.float32]


class Stepper(Protocol):
    """Runs one bundle's step. Not for several threads at once."""

    def step(self, x: Array, state: Array) -> tuple[Array, Array]:
        """``x`` (batch, F), ``state`` (batch, S) -> ``y`` (batch, K, 1 + Q), next state (batch, S); all float32."""
        ...

    def gates(self, x: Array, state: Array) -> dict[str, Array]:
        """Gate activations by output name, (batch, gates * units); empty for a bundle without gates."""
        ...


class LiteStepper:
    """Through LiteRT. Any batch size; a change of it re-plans the memory, so keep to one or two."""

    def __init__(self, tflite: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # a runtime: loaded when there is something to run

        with quiet():  # the runtime greets when it first allocates
            self._interpreter = Interpreter(model_path=str(tflite), num_threads=1)
            self._step = self._interpreter.get_signature_runner("step")
            details = self._step.get_input_details().items()
            self._step(**{name: np.zeros((1, detail["shape"][1]), np.float32) for name, detail in details})
        known = self._interpreter.get_signature_list()
        self._gates = self._interpreter.get_signature_runner("gates") if "gates" in known else None

    def step(self, x: Array, state: Array) -> tuple[Array, Array]:
        out = self._step(x=x, state=state)
        return out["y"], out["state"]

    def gates(self, x: Array, state: Array) -> dict[str, Array]:
        return {} if self._gates is None else dict(self._gates(x=x, state=state))


class SavedModelStepper:
    """Through the SavedModel's own signatures."""

    def __init__(self, bundle: Path) -> None:
        import tensorflow as tf  # only for bundles without step.tflite

        self._loaded: Any = tf.saved_model.load(str(bundle))
        self._constant = tf.constant

    def step(self, x: Array, state: Array) -> tuple[Array, Array]:
        out = self._loaded.signatures["step"](x=self._constant(x), state=self._constant(state))
        return out["y"].numpy(), out["state"].numpy()

    def gates(self, x: Array, state: Array) -> dict[str, Array]:
        if "gates" not in self._loaded.signatures:
            return {}
        out = self._loaded.signatures["gates"](x=self._constant(x), state=self._constant(state))
        return {name: value.numpy() for name, value in out.items()}


def open_stepper(bundle: Path) -> Stepper:
    """The fastest way to run the step of the bundle in folder `bundle`."""
    tflite = bundle / STEP_TFLITE
    return LiteStepper(tflite) if tflite.exists() else SavedModelStepper(bundle)
