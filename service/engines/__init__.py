"""What executes a bundle's step: the only files of the service that import a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.manifest import STEP_TFLITE
from service.core.ports import Engine
from service.core.types import ModelSpec

EngineKind = Literal["auto", "litert", "tensorflow"]


def open_engine(bundle: Path, spec: ModelSpec, kind: EngineKind = "auto") -> Engine:
    """The engine of the bundle in folder `bundle`. BundleInvalid if its graph is not what `spec` says.

    "auto" takes LiteRT where the bundle has a step.tflite, which export only leaves there after it has agreed
    with the SavedModel, and TensorFlow otherwise. A runtime is imported only when it is chosen.
    """
    if kind == "litert" or (kind == "auto" and (bundle / STEP_TFLITE).is_file()):
        from service.engines.litert import LiteRTEngine

        return LiteRTEngine(bundle / STEP_TFLITE, spec)
    from service.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(bundle, spec)
