"""A candidate with real bundles: it shadows unseen, is promoted, and goes on from what its shadow has seen."""

import shutil

import numpy as np
import pytest

from service.bootstrap import build
from service.settings import Settings
from tests.conftest import TRIPLE
from tests.offline import assert_equal

TOKEN = "the-token-of-these-tests"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
SEED, BEFORE, BESIDE, AFTER = 5, 30, 40, 25


@pytest.fixture(scope="module")
def series():
    size = (BEFORE + BESIDE + AFTER, 3)
    return np.random.default_rng(SEED).normal([10, 5, 1010], [9, 7, 8], size).round(2).astype(np.float32)


class Office:
    """A service in this process, its clients and its administrator."""

    def __init__(self, models, state):
        where = {"state_url": f"sqlite:///{state}", "models_dir": models}
        # the model's own intervals, which are what the offline pass has
        self.service = build(Settings(workers=1, admin_token=TOKEN, adaptive_intervals=False, **where))
        self.http = self.service.app.test_client()

    def send(self, series, first, last, client="c"):
        """Steps first + 1 to last, one by one: their answers."""
        answers = []
        for step in range(first, last):
            body = {"observation": series[step].tolist(), "step": step + 1}
            answer = self.http.post(f"/v1/models/{TRIPLE}/clients/{client}/predict", json=body)
            assert answer.status_code == 200, answer.text
            answers.append(answer.get_json())
        return answers

    def label(self, name, version):
        answer = self.http.put(f"/v1/models/{TRIPLE}/labels/{name}", json={"version": version}, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def get(self, path):
        return self.http.get(f"/v1/models/{TRIPLE}{path}").get_json()


@pytest.fixture
def office(two_versions, tmp_path):
    offices = []

    def opened(name):
        shutil.copytree(two_versions, tmp_path / name)
        offices.append(Office(tmp_path / name, tmp_path / f"{name}-state"))
        return offices[-1]

    yield opened
    for each in offices:
        each.service.close()


def test_a_candidate_is_unseen_and_once_promoted_answers_as_offline_from_where_its_shadow_began(office, series):
    from tests.training.bundles import make_tiny_model

    one, other = office("shadowed"), office("alone")
    told = one.send(series, 0, BEFORE), other.send(series, 0, BEFORE)
    assert one.label("candidate", 2)["labels"] == {"candidate": 2, "stable": 1}
    beside = one.send(series, BEFORE, BEFORE + BESIDE), other.send(series, BEFORE, BEFORE + BESIDE)
    assert told[0] == told[1]
    assert beside[0] == beside[1], "to the bit, as JSON tells it"
    shadow = one.get("/clients/c")["shadow"]
    assert (shadow["version"], shadow["compared"]) == (2, BESIDE - 1)

    assert one.label("stable", 2)["labels"] == {"previous": 1, "stable": 2}
    length = one.get("")["context_length"]
    began = max(0, BEFORE - length)
    offline = make_tiny_model(seed=12)(series[None, began:]).numpy()[0]
    forecast = one.get("/clients/c/forecast?horizon=1")
    assert (forecast["version"], forecast["state"]["reason"]) == (2, "promoted")
    assert_equal(forecast["prediction"], offline[BEFORE + BESIDE - began - 1])
    after = one.send(series, BEFORE + BESIDE, len(series))
    assert [answer["state"]["reason"] for answer in after] == ["promoted"] + [None] * (AFTER - 1)
    assert {(answer["version"], answer["state"]["status"]) for answer in after} == {(2, "carried")}
    for step, answer in enumerate(after, BEFORE + BESIDE):
        assert_equal(answer["prediction"], offline[step - began])
    previous = {name: target["predicted"] for name, target in after[0]["previous"].items()}
    assert previous == {name: target["value"] for name, target in beside[0][-1]["prediction"].items()}
    assert one.get("/clients/c")["scored"] == len(series) - 1


def test_a_rollback_rebuilds_under_the_version_that_was_kept_loaded(office, series):
    one = office("back")
    one.label("candidate", 2)
    one.send(series, 0, 10)
    one.label("stable", 2)
    one.send(series, 10, 20)
    assert one.label("stable", 1)["labels"] == {"previous": 2, "stable": 1}
    (answer,) = one.send(series, 20, 21)
    assert (answer["version"], answer["state"]["reason"]) == (1, "model_updated")
