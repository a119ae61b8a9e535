"""The bundles to measure: the published sensor model, or an untrained one of its size where none is published.

    python -m benchmarks.bundle FOLDER [NAME=UNITS ...]

publishes untrained ones into FOLDER (two LSTM layers of UNITS, three features, two quantiles, seeded; sensor=64 if none
is named): speed does not depend on what weights have learnt. A process of its own, so that the measuring one never
loads TensorFlow.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import BenchmarkFailed
from models.repository import Repository

NAME = "sensor"
UNITS = 64


def sensor_repository(published: Path, scratch: Path) -> tuple[Path, str]:
    """A model repository that serves `NAME`, and where its model is from in words."""
    repository = Repository(published)
    if NAME in repository.names() and repository.labels(NAME).labels:
        return published, f"the published model {NAME}, version {repository.resolve(NAME)}"
    return untrained(scratch, {NAME: UNITS}), f"an untrained model of the size of {NAME}"


def two_models(published: Path, scratch: Path) -> Path:
    """A model repository that serves `NAME` and at least one model more; nothing is written to `published`."""
    repository = Repository(published)
    served = [name for name in repository.names() if repository.labels(name).labels]
    if NAME in served and len(served) > 1:
        return published
    if NAME in served:
        shutil.copytree(published / NAME, scratch / NAME)
        return untrained(scratch, {"second": UNITS})
    return untrained(scratch, {NAME: UNITS, "second": UNITS})


def untrained(folder: Path, units: dict[str, int]) -> Path:
    """`folder`, with untrained models of these names and units published into it. BenchmarkFailed says why not."""
    models = (f"{name}={many}" for name, many in units.items())
    command = [sys.executable, "-m", "benchmarks.bundle", str(folder), *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"no bundle to measure could be made:\n{done.stderr[-2000:]}")
    return folder


def publish_untrained(root: Path, name: str, units: int) -> None:
    """Export and publish an untrained model into the repository at `root`."""
    import keras

    from models.manifest import Feature, Target
    from training.export import export

    keras.utils.set_random_seed(2)
    x = keras.Input((None, 3), name="observations")
    h = keras.layers.Normalization(mean=[12.0, 2.0, 1016.0], variance=[150.0, 200.0, 105.0])(x)
    h = keras.layers.LSTM(units, return_sequences=True)(h)
    h = keras.layers.LSTM(units, return_sequences=True)(h)
    y = keras.layers.Reshape((-1, 3, 3))(keras.layers.Dense(9)(h))
    names = {"temperature": "degC", "dew_point": "degC", "pressure": "hPa"}
    repository = Repository(root)
    with repository.stage(name) as folder:
        manifest = export(
            keras.Model(x, y),
            folder,
            name=name,
            features=[Feature(name=each, unit=unit) for each, unit in names.items()],
            targets=[Target(name=each, unit=unit, scale=10.0) for each, unit in names.items()],
            interval_s=3600.0,
            quantiles=(0.05, 0.95),
            architecture="lstm",
            data=[weather()],
            allow_slow_fading=True,
        )
        repository.publish(folder, manifest)


def weather(hours: int = 600) -> NDArray[np.float32]:
    """Observations like those of the load, (hours, 3) float32, seeded: what the export proves the model on."""
    random, hour = np.random.default_rng(2), np.arange(hours)
    columns = 12 + 9 * np.sin(hour / 24 * 2 * np.pi), 3 + 4 * np.sin(hour / 100), 1013 + 8 * np.cos(hour / 70)
    return (np.stack(columns, axis=1) + random.normal(size=(hours, 3))).astype(np.float32)


if __name__ == "__main__":
    for model in sys.argv[2:] or [f"{NAME}={UNITS}"]:
        publish_untrained(Path(sys.argv[1]), model.partition("=")[0], int(model.partition("=")[2]))
