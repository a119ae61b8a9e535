"""What if: looking ahead from observations that are only supposed, and with values of those to come that are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.core.checks import check_values
from service.core.errors import InvalidInput, Unsupported
from service.core.ports import Engine
from service.core.types import FloatArray, ModelSpec


@dataclass(frozen=True, slots=True)
class Supposed:
    """What a look ahead is to suppose, raw units.

    ``observations`` (n, F) float32, n >= 0: as if they had come since the client's last one. ``future``
    (horizon - 1, F) float32 or None: what is known of the observations at the steps looked at, NaN where the model's
    own prediction is to stand for it. With it a model can look ahead that does not predict all its features.
    """

    observations: FloatArray
    future: FloatArray | None = None


def check_supposed(spec: ModelSpec, supposed: Supposed, horizon: int) -> None:
    """InvalidInput or Unsupported for what `spec`'s model can't suppose."""
    if len(supposed.observations):
        check_values(spec, supposed.observations)
    if supposed.future is None:
        return
    if supposed.future.shape != (horizon - 1, len(spec.features)):
        raise InvalidInput("future", f"needs {horizon - 1} rows of {len(spec.features)} values")
    targets = {target.name for target in spec.targets}
    for column, feature in enumerate(spec.features):
        missing = np.isnan(supposed.future[:, column])
        if feature.name not in targets and missing.any():
            at = f"future[{int(missing.argmax())}].{feature.name}"
            raise Unsupported(f"{at} is not given, and model {spec.name!r} does not predict it")


def follow(
    engine: Engine, state: FloatArray, y: FloatArray, observations: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """State (S,) and prediction (K, W) after ``observations`` (n, F), from ``state`` and ``y``, which stay as they are.

    InvalidInput not_finite where the observations drive them out of float32's range.
    """
    batch = state[None]
    for row in observations:
        out, batch = engine.step(row[None], batch)
        y = out[0]
    if not (np.isfinite(batch).all() and np.isfinite(y).all()):
        detail = "the values drive the model's state or prediction out of float32's range"
        raise InvalidInput("observations", detail, code="not_finite")
    return batch[0], y
