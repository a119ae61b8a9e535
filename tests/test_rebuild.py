"""A client of the real service after a new version: rebuilt, and within 1 % of scale of its whole history."""

import numpy as np
import pytest

from models.repository import Repository
from service.bootstrap import build
from service.settings import Settings
from tests.training.bundles import make_tiny_bundle, make_tiny_model

NAMES = ("temperature", "dew_point", "pressure")
PATH = "/v1/models/tiny/clients/roof-7/predict"


@pytest.fixture
def publish(tmp_path):
    def publish(seed):
        repository = Repository(tmp_path / "models")
        with repository.stage("tiny") as staging:
            repository.publish(staging, make_tiny_bundle(staging, seed=seed))

    return publish


def test_a_rebuilt_state_predicts_as_one_with_the_whole_history(publish, tmp_path):
    settings = Settings(state_url=f"sqlite:///{tmp_path}/state", models_dir=tmp_path / "models")
    series = np.random.default_rng(3).normal([10, 5, 1010], [9, 7, 8], (400, 3)).astype(np.float32)
    publish(11)
    before = build(settings)
    posted = before.app.test_client().post(PATH, json={"observations": series[:399].tolist()})
    assert posted.status_code == 200, posted.text
    before.close()
    publish(12)
    after = build(settings)
    answer = after.app.test_client().post(PATH, json={"observation": series[399].tolist(), "step": 400}).get_json()
    after.close()
    context = answer["state"]["context"]
    assert (answer["version"], answer["step"]) == (2, 400)
    assert answer["state"] == {"status": "rebuilt", "reason": "model_updated", "context": context, "filled": 0}
    assert context < 400
    expected = make_tiny_model(seed=12)(series[None]).numpy()[0, -1]
    for k, name in enumerate(NAMES):
        told = answer["prediction"][name]
        values = told["value"], told["interval"]["lower"], told["interval"]["upper"]
        np.testing.assert_allclose(values, expected[k, [0, 1, 3]], rtol=0, atol=0.01)  # the bundle's scale is 1
