"""Tiny untrained bundles, for tests that need a real one and not a good one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.manifest import Feature, Manifest, Residuals, Target

NAMES = (("temperature", "degC"), ("dew_point", "degC"), ("pressure", "hPa"))


def make_tiny_model(n_features: int = 3, n_targets: int | None = None, *, quantiles: int = 3, units: int = 6,
                    seed: int = 11) -> Any:  # fmt: skip
    """Two stacked LSTMs with a residual output, (B, T, F) -> (B, T, K, 1 + Q), seeded and untrained."""
    import keras

    keras.utils.set_random_seed(seed)
    n_targets = n_features if n_targets is None else n_targets
    x = keras.Input((None, n_features), name="x")
    h = keras.layers.LSTM(units, return_sequences=True, name="lower")(x)
    h = keras.layers.LSTM(units, return_sequences=True, name="upper")(h)
    move = keras.layers.Dense(n_targets * (1 + quantiles), name="move")(h)
    move = keras.layers.Reshape((-1, n_targets, 1 + quantiles), name="columns")(move)
    level = keras.layers.Reshape((-1, n_features, 1), name="level")(x)[:, :, :n_targets]
    if quantiles:
        spread = np.linspace(-1.0, 1.0, quantiles)[None, None, None, :].astype("float32")
        point, rest = move[..., :1], keras.ops.tanh(move[..., 1:]) * 0.01 + spread
        move = keras.layers.Concatenate(name="all")([point, rest + point])
    return keras.Model(x, keras.layers.Add(name="residual")([level, move]), name="tiny")


def make_tiny_bundle(folder: Path, *, name: str = "tiny", n_features: int = 3, n_targets: int | None = None,
                     interval_s: float | None = 3600.0, quantiles: tuple[float, ...] = (0.05, 0.5, 0.95),
                     units: int = 6, seed: int = 11, horizon: int = 24,
                     limits: tuple[float | None, float | None] = (None, None),
                     residuals: bool = True, tflite: bool = True) -> Manifest:  # fmt: skip
    """Export a tiny model into `folder`: 1-3 features, all predicted unless `n_targets` says fewer.

    Another `seed` gives other weights under the same contract. `tflite=False` leaves step.tflite out. What was exported
    once is copied afterwards, under whatever name and interval.
    """
    from models.manifest import MANIFEST, STEP_TFLITE

    exported, manifest = _export(n_features, n_targets, quantiles, units, seed, limits)
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    changes: dict[str, Any] = {"name": name, "interval_s": interval_s}
    if residuals:
        spread = [[[-0.1 * (h + 1), 0.0, 0.1 * (h + 1)] for _ in manifest.targets] for h in range(horizon)]
        changes["residuals"] = Residuals(levels=(0.05, 0.5, 0.95), quantiles=spread)
    manifest = Manifest.model_validate(manifest.model_copy(update=changes).model_dump())
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    if not tflite:
        (folder / STEP_TFLITE).unlink()
    return manifest


@cache
def _export(n_features: int, n_targets: int | None, quantiles: tuple[float, ...], units: int, seed: int,
            limits: tuple[float | None, float | None]) -> tuple[Path, Manifest]:  # fmt: skip
    """A bundle of such a model, in a folder of this process's, and its manifest."""
    from training.export import export

    folder = Path(tempfile.mkdtemp(prefix="recurve-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    features = [Feature(name=n, unit=u, minimum=limits[0], maximum=limits[1]) for n, u in NAMES[:n_features]]
    targets = [Target(name=f.name, unit=f.unit, scale=1.0) for f in features[:n_targets]]
    model = make_tiny_model(n_features, n_targets, quantiles=len(quantiles), units=units, seed=seed)
    manifest = export(model, folder / "bundle", name="tiny", features=features, targets=targets, interval_s=None,
                      quantiles=quantiles, architecture="lstm")  # fmt: skip
    return folder / "bundle", manifest
