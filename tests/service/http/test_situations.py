"""The table of situations: what a request meets, what it is answered, and that a refused one moves nothing."""

import numpy as np
import pytest

from service.core.types import ClientKey
from tests.fakes import make_spec, serve
from tests.service.http.conftest import HOUR, Api, is_problem

T0 = 1_699_920_000.0  # well before the clock of the tests


def test_the_first_observation_starts_from_the_fresh_state(api):
    answer = api.predict(4.0)
    assert answer["step"] == 1
    assert answer["state"] == {"status": "started", "reason": None, "context": 1, "filled": 0}
    assert answer["previous"] is None


def test_the_next_observation_carries_the_state_on(api):
    api.predict(4.0)
    answer = api.predict(8.0)
    assert answer["step"] == 2
    assert answer["state"]["status"] == "carried"
    assert answer["prediction"]["a"]["value"] == 5.0  # 4 -> 2, then (2 + 8) / 2
    assert answer["previous"]["a"] == {"predicted": 2.0, "observed": 8.0, "error": 6.0, "anomaly": None}


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({"step": 2}, {}), ({}, {"Idempotency-Key": "k-1"}), ({"time": T0 + HOUR}, {})],
    ids=["by step", "by key", "by time"],
)
def test_the_last_request_again_gets_its_answer_again_and_moves_nothing(api, fields, headers):
    api.predict(4.0, time=T0)
    body = {"observation": 8.0, **fields}
    first = api.post(body, headers=headers)
    before = api.record()
    again = api.post(body, headers=headers)
    assert again.headers["Idempotent-Replay"] == "true"
    assert "Idempotent-Replay" not in first.headers
    assert again.get_data() == first.get_data()
    assert api.record() == before


def test_an_older_request_again_is_told_its_step(api, refused):
    for step, value in enumerate((1.0, 2.0, 3.0), 1):
        api.predict(value, step=step)
    refused(lambda: api.post({"observation": 1.0, "step": 1}), 409, "already_absorbed", expected_step=4, step=1)


def test_a_used_key_with_other_content_conflicts(api, refused):
    api.post({"observation": 1.0}, headers={"Idempotency-Key": "k"})
    again = {"headers": {"Idempotency-Key": "k"}}
    refused(lambda: api.post({"observation": 2.0}, **again), 409, "key_conflict", expected_step=2)


@pytest.mark.parametrize(("step", "why"), [(2, "other values"), (1, "behind"), (5, "ahead")])
def test_a_step_out_of_order_conflicts_and_names_the_expected_one(api, refused, step, why):
    api.predict(1.0)
    api.predict(2.0)
    problem = refused(lambda: api.post({"observation": 9.0, "step": step}), 409, "step_conflict", expected_step=3)
    assert why in problem["detail"]


def test_a_new_clients_first_step_is_one(api, refused):
    refused(lambda: api.post({"observation": 1.0, "step": 7}), 409, "step_conflict", expected_step=1)
    assert api.predict(1.0, step=1)["step"] == 1


def test_a_short_gap_is_filled_where_the_model_predicts_its_features(api):
    api.predict(4.0, model="hourly", time=T0)
    answer = api.predict(8.0, model="hourly", time=T0 + 3 * HOUR)
    assert answer["state"] == {"status": "carried", "reason": None, "context": 2, "filled": 2}
    assert answer["step"] == 2
    assert answer["previous"] is None


def test_a_gap_restarts_where_the_model_cannot_fill_it(api):
    api.predict([4.0, 1.0], model="half", time=T0)
    answer = api.predict([8.0, 1.0], model="half", time=T0 + 3 * HOUR)
    assert (answer["state"]["status"], answer["state"]["reason"]) == ("restarted", "gap")
    assert (answer["step"], answer["state"]["context"]) == (2, 1)


def test_a_gap_is_rejected_on_demand(api, refused):
    api.predict(4.0, model="hourly", time=T0)
    body = {"observation": 8.0, "time": T0 + 3 * HOUR, "gap": "reject"}
    refused(lambda: api.post(body, model="hourly"), 409, "gap", model="hourly", expected_step=2, missing=2)


def test_filling_a_model_that_cannot_feed_back_is_refused_with_the_reason(api, refused):
    api.predict([4.0, 1.0], model="half", time=T0)
    body = {"observation": [8.0, 1.0], "time": T0 + 3 * HOUR, "gap": "fill"}
    assert (
        "does not predict: b"
        in refused(lambda: api.post(body, model="half"), 422, "unsupported", model="half")["detail"]
    )


def test_a_gap_beyond_the_longest_restarts(api):
    api.predict(4.0, model="hourly", time=T0 - 40 * HOUR)
    answer = api.predict(8.0, model="hourly", time=T0)
    assert (answer["state"]["status"], answer["state"]["reason"]) == ("restarted", "gap")


@pytest.mark.parametrize(
    ("time", "status", "code"),
    [
        (T0 - HOUR, 409, "time_conflict"),
        (T0, 409, "time_conflict"),
        (T0 + 600, 409, "too_soon"),
        (T0 + 40 * HOUR, 422, "invalid"),
    ],
    ids=["before the last", "at the last", "too soon", "in the future"],
)
def test_a_time_that_does_not_follow_is_refused(api, refused, time, status, code):
    api.predict(4.0, model="hourly", time=T0)
    extra = {"expected_step": 2} if status == 409 else {"field": "time"}
    refused(lambda: api.post({"observation": 8.0, "time": time}, model="hourly"), status, code, model="hourly", **extra)


def test_new_weights_rebuild_the_state_from_the_context(api):
    api.predict(4.0)
    serve(api.registry, make_spec(name="toy", version=2, fingerprint="11"), api.engine, generation=2)
    answer = api.predict(8.0)
    assert (answer["state"]["status"], answer["state"]["reason"]) == ("rebuilt", "model_updated")
    assert (answer["version"], answer["step"], answer["prediction"]["a"]["value"]) == (2, 2, 5.0)


def test_an_idle_client_restarts_and_is_told_since_when(api):
    api.predict(4.0)
    seen = api.clock.now
    api.clock.now += 8 * 24 * HOUR
    answer = api.predict(8.0)
    assert (answer["state"]["status"], answer["state"]["reason"]) == ("restarted", "expired")
    assert answer["step"] == 2
    assert answer["state"]["last_seen"] == "2023-11-14T22:13:20.000Z"
    assert seen == 1_700_000_000.0


def test_an_unreadable_record_is_set_aside_and_the_client_restarts(api):
    api.predict(4.0)
    key = ClientKey("default", "toy", "c")
    stored = api.store.inner.load(key)
    api.store.inner.save(key, stored.nonce, b"nonsense", b"\0" * 40)
    answer = api.predict(8.0, step=7)
    assert (answer["state"]["status"], answer["state"]["reason"]) == ("restarted", "corrupt")
    assert answer["step"] == 7


def test_no_room_for_a_new_client_is_said_with_a_time_to_retry_and_others_go_on():
    api = Api(max_clients=1)
    api.predict(1.0, client="old")
    answer = api.post({"observation": 1.0}, client="new")
    is_problem(answer, 429, "at_capacity")
    assert int(answer.headers["Retry-After"]) >= 1
    assert api.view("new") is None
    assert api.predict(2.0, client="old")["step"] == 2


def test_a_store_that_is_away_is_503_and_goes_on_where_it_was(api):
    api.predict(4.0)
    before = api.record()
    api.store.down = True
    answers = [
        api.post({"observation": 8.0}),
        api.send("PUT", "/v1/models/toy/clients/c/history", {"observations": [1.0]}),
        api.send("GET", "/v1/models/toy/clients/c"),
        api.send("GET", "/v1/models/toy/clients/c/forecast"),
        api.send("DELETE", "/v1/models/toy/clients/c"),
        api.send("GET", "/v1/models/toy/clients"),
    ]
    for answer in answers:
        is_problem(answer, 503, "store_unavailable")
        assert answer.headers["Retry-After"] == "2"
    api.store.down = False
    assert api.record() == before
    assert api.predict(8.0)["step"] == 2


def test_looking_ahead_is_refused_where_the_model_does_not_predict_its_features(api, refused):
    api.predict([1.0, 1.0], model="half")
    refused(lambda: api.post({"observation": [1.0, 1.0], "horizon": 3}, model="half"), 422, "unsupported", model="half")
    refused(lambda: api.send("GET", "/v1/models/half/clients/c/forecast?horizon=2"), 422, "unsupported", model="half")


def test_values_that_drive_the_state_out_of_range_are_refused(api, refused):
    class Exploding:
        def step(self, x, state):
            with np.errstate(over="ignore"):
                return np.repeat(x[:, :, None], 3, 2), x * np.float32(1e38)

        def gates(self, x, state):
            return []

        def close(self):
            pass

    serve(api.registry, make_spec(name="toy"), Exploding())
    api.predict(1.0)
    refused(lambda: api.post({"observation": 1e30}), 422, "not_finite")


def test_a_refused_request_of_several_absorbs_none_of_them(api, refused):
    api.predict([1.0, 1.0, 1000.0], model="weather")
    body = {"observations": [[2.0, 1.0, 1000.0], [3.0, 1.0, 5000.0]]}
    refused(lambda: api.post(body, model="weather"), 422, "invalid", model="weather", field="observations[1].pressure")


def test_deleting_begins_anew(api):
    api.predict(1.0)
    assert api.send("DELETE", "/v1/models/toy/clients/c").status_code == 204
    assert api.predict(1.0, step=1)["state"]["status"] == "started"
