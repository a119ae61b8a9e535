"""Evaluation's own few lines of LiteRT answer as the service's engines do."""

import numpy as np
import pytest

from models.manifest import read_manifest
from models.repository import Repository
from service.engines import open_engine
from service.specs import spec_of
from tests.training.zoo import walk_like
from training.stepping import LiteStepper, SavedModelStepper, open_stepper


@pytest.mark.parametrize("name", ["single", "tiny"])
@pytest.mark.parametrize("kind", ["litert", "tensorflow"])
def test_stepper_and_engine_are_equal_step_by_step(tiny_repository, name, kind):
    bundle = Repository(tiny_repository).bundle(name, 1)
    manifest = read_manifest(bundle)
    engine = open_engine(bundle, spec_of(manifest, 1), kind)
    stepper = LiteStepper(bundle / "assets.extra/step.tflite") if kind == "litert" else SavedModelStepper(bundle)
    for batch in (1, 7):
        x = walk_like(np.random.default_rng(1), batch, 25, len(manifest.features))
        a = b = np.tile(np.float32(manifest.initial_state), (batch, 1))
        for t in range(25):
            gates = stepper.gates(x[:, t], a)
            for described, values in zip(manifest.gates, engine.gates(x[:, t], b), strict=True):
                np.testing.assert_allclose(gates[described.output], values, atol=1e-6)
            (y_a, a), (y_b, b) = stepper.step(x[:, t], a), engine.step(x[:, t], b)
            np.testing.assert_allclose(y_a, y_b, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    engine.close()


def test_litert_is_taken_where_there_is_a_step_tflite(tiny_repository):
    assert isinstance(open_stepper(Repository(tiny_repository).bundle("single", 1)), LiteStepper)
