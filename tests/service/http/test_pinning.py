"""A client may be kept under a label: its state is rebuilt there, its number goes on, its retries stay known."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.core.record import decode
from service.core.registry import Served, ServedModel
from service.core.types import ClientKey
from tests.fakes import LeakyIntegrator, make_spec
from tests.service.http.conftest import Api, is_problem

CLIENT = "/v1/models/toy/clients/c"


@pytest.fixture
def pinnable():
    api = Api()
    relabel(api, {"stable": 1, "candidate": 2})
    return api


def relabel(api, labels, generation=2):
    versions = {
        1: Served(make_spec(name="toy"), api.engine, {}),
        2: Served(make_spec(name="toy", version=2, fingerprint="11"), LeakyIntegrator(0.25), {}),
    }
    api.registry.replace({**api.registry.models, "toy": ServedModel("toy", generation, labels, versions)})


def pin(api, label, status=200, client=CLIENT):
    answer = api.send("PUT", client, {"label": label})
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer


def record(api):
    return decode(ClientKey("default", "toy", "c"), api.record().blob)


def test_a_pinned_client_is_rebuilt_under_its_label_and_back_under_stable(pinnable):
    pinnable.predict(1.0)
    pinnable.predict(2.0)
    view = pin(pinnable, "candidate").json
    assert (view["label"], view["step"], "shadow" in view) == ("candidate", 2, False)
    answer = pinnable.predict(3.0)
    assert (answer["version"], answer["step"]) == (2, 3)
    assert answer["state"] == {"status": "rebuilt", "reason": "model_updated", "context": 3, "filled": 0}
    assert pinnable.predict(4.0)["state"]["status"] == "carried"
    assert len(record(pinnable).tracks) == 1, "a pinned client has no shadow"
    pin(pinnable, "stable")
    answer = pinnable.predict(5.0)
    assert (answer["version"], answer["step"], answer["state"]["reason"]) == (1, 5, "model_updated")
    assert len(record(pinnable).tracks) == 2


def test_a_label_that_vanishes_falls_back_to_stable_and_counts_again_when_it_returns(pinnable):
    pinnable.predict(1.0)
    pin(pinnable, "candidate")
    pinnable.predict(2.0)
    relabel(pinnable, {"stable": 1}, 3)
    answer = pinnable.predict(3.0)
    assert (answer["version"], answer["state"]["reason"]) == (1, "label_gone")
    relabel(pinnable, {"stable": 1, "candidate": 2}, 4)
    assert pinnable.predict(4.0)["version"] == 2


def test_a_client_pinned_to_what_is_promoted_just_goes_on(pinnable):
    pinnable.predict(1.0)
    pin(pinnable, "candidate")
    pinnable.predict(2.0)
    relabel(pinnable, {"stable": 2, "previous": 1}, 3)
    assert pinnable.predict(3.0)["state"] == {"status": "carried", "reason": None, "context": 3, "filled": 0}


def test_a_retry_after_a_pin_gets_its_stored_answer(pinnable):
    first = pinnable.predict(1.0, step=1)
    pin(pinnable, "candidate")
    again = pinnable.post({"observation": 1.0, "step": 1})
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.json == first
    assert pinnable.predict(2.0, step=2)["version"] == 2


def test_the_same_pin_again_writes_nothing(pinnable):
    pinnable.predict(1.0)
    pin(pinnable, "candidate")
    before = pinnable.record()
    pin(pinnable, "candidate")
    assert pinnable.record() == before


def test_a_history_keeps_the_pin_and_a_forgotten_client_has_none(pinnable):
    pinnable.predict(1.0)
    pin(pinnable, "candidate")
    answer = pinnable.send("PUT", f"{CLIENT}/history", {"observations": [1.0, 2.0]})
    assert (answer.json["version"], pinnable.view()["label"]) == (2, "candidate")
    pinnable.send("DELETE", CLIENT)
    assert pinnable.predict(1.0)["version"] == 1


@pytest.mark.parametrize("body", [{"label": "nobody"}, {"label": ""}, {"label": 3}, {}])
def test_what_is_no_label_is_refused_and_the_labels_there_are_named(pinnable, body):
    pinnable.predict(1.0)
    before = pinnable.record()
    problem = is_problem(pinnable.send("PUT", CLIENT, body), 422, "invalid", field="label")
    assert pinnable.record() == before
    if body.get("label") == "nobody":
        assert "candidate, stable" in problem["detail"]


def test_who_is_not_known_or_expired_can_not_be_pinned(pinnable):
    is_problem(pinnable.send("PUT", CLIENT, {"label": "candidate"}), 404, "client_not_found")
    is_problem(pinnable.send("PUT", "/v1/models/none/clients/c", {"label": "candidate"}), 404, "model_not_found")
    pinnable.predict(1.0)
    pinnable.clock.now += 8 * 24 * 3600
    before = pinnable.record()
    is_problem(pinnable.send("PUT", CLIENT, {"label": "candidate"}), 404, "client_not_found")
    assert pinnable.record() == before


def test_pins_between_steps_lose_no_step(pinnable):
    pinnable.predict(0.0)

    def steps(_):
        return pinnable.post({"observation": 1.0}).status_code

    def pins(i):
        return pin(pinnable, ("candidate", "stable")[i % 2]).status_code

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda job: job[0](job[1]), [(steps, 0) if i % 3 else (pins, i) for i in range(90)]))
    assert set(done) == {200}
    assert pinnable.view()["step"] == 61
