"""What answers look like: the design's vocabulary, float32 values, one shape for a prediction everywhere."""

import json

import numpy as np
import pytest

from service.http.times import iso_time, parse_time
from tests.fakes import LeakyIntegrator, make_spec, serve
from tests.service.http.conftest import HOUR

T0 = 1_699_920_000.0


def prediction(value, lower=None, upper=None, unit="u"):
    interval = None if lower is None else {"level": 0.9, "lower": lower, "upper": upper}
    return {"value": value, "interval": interval, "unit": unit}


def test_an_answer_has_exactly_the_documented_members(api):
    api.predict(4.0)
    assert api.predict(8.0) == {
        "model": "toy",
        "version": 1,
        "client": "c",
        "step": 2,
        "prediction": {"a": prediction(5.0, 4.0, 6.0)},
        "previous": {"a": {"predicted": 2.0, "observed": 8.0, "error": 6.0, "anomaly": None}},
        "state": {"status": "carried", "reason": None, "context": 2, "filled": 0},
    }


def test_a_model_without_quantiles_answers_null_intervals(api):
    class Plain(LeakyIntegrator):
        def step(self, x, state):
            y, following = super().step(x, state)
            return np.ascontiguousarray(y[:, :, :1]), following

    spec = make_spec(name="toy", quantiles=(), level=None, interval_columns=None, residuals=None)
    serve(api.registry, spec, Plain())
    answer = api.predict(4.0, horizon=2)
    assert answer["prediction"] == {"a": prediction(2.0)}
    assert answer["forecast"][1]["prediction"]["a"]["interval"] is None


def test_an_observation_is_a_number_a_list_or_an_object(api):
    for client, observation in (
        ("list", [21.0, 12.0, 1013.0]),
        ("object", {"pressure": 1013.0, "temperature": 21.0, "dew_point": 12.0}),
    ):
        assert api.predict(observation, client, "weather")["prediction"]["pressure"]["value"] == 506.5
    assert api.predict(4, "integer")["prediction"] == api.predict([4.0], "one in a list")["prediction"]


def test_values_come_out_as_the_shortest_text_of_the_float32(api):
    serve(api.registry, make_spec(name="toy"), LeakyIntegrator(leak=0.0))  # predicts what it was given
    answer = api.post({"observation": 21.43})
    assert b'"value":21.43,' in answer.get_data()
    for value in np.random.default_rng(3).normal(0, 100, 50).astype(np.float32):
        got = api.predict(float(value), client="x")["prediction"]["a"]["value"]
        assert np.float32(got) == value


def test_all_predictions_are_returned_on_demand_and_equal_those_of_single_requests(api):
    values = [4.0, 8.0, 1.5, -2.0]
    answer = api.post({"observations": values, "return": "all"}).json
    singles = [api.predict(value, client="single") for value in values]
    assert answer["predictions"] == [{"step": one["step"], "prediction": one["prediction"]} for one in singles]
    assert answer["prediction"] == singles[-1]["prediction"]
    assert "predictions" not in singles[0]


def test_steps_of_all_predictions_go_on_from_where_the_client_stood(api):
    api.predict(1.0)
    answer = api.post({"observations": [2.0, 3.0], "return": "all"}).json
    assert [one["step"] for one in answer["predictions"]] == [2, 3]


def test_a_horizon_adds_a_forecast_by_steps_ahead(api):
    answer = api.predict(4.0, horizon=3)
    assert [one["horizon"] for one in answer["forecast"]] == [1, 2, 3]
    assert answer["forecast"][0]["prediction"]["a"]["value"] == answer["prediction"]["a"]["value"]
    assert answer["forecast"][2]["prediction"] == {"a": prediction(2.0, 1.0, 3.0)}
    assert "forecast" not in api.predict(4.0)


def test_a_forecast_does_not_move_the_client(api):
    api.predict(4.0)
    before = api.record()
    answer = api.send("GET", "/v1/models/toy/clients/c/forecast?horizon=2")
    assert answer.status_code == 200
    assert [one["horizon"] for one in answer.json["forecast"]] == [1, 2]
    assert (answer.json["step"], answer.json["previous"]) == (1, None)
    assert api.record() == before


def test_a_forecast_looks_24_steps_ahead_by_default(api):
    api.predict(4.0)
    assert len(api.send("GET", "/v1/models/toy/clients/c/forecast").json["forecast"]) == 24


def test_a_history_primes_the_client_from_its_first_step(api):
    api.predict(100.0)
    answer = api.send("PUT", "/v1/models/toy/clients/c/history", {"observations": [4.0, 8.0]})
    assert answer.status_code == 200
    assert answer.json["step"] == 2
    assert answer.json["prediction"]["a"]["value"] == 5.0
    assert answer.json["state"]["context"] == 2
    assert api.predict(1.0, step=3)["state"]["status"] == "carried"


def test_a_history_may_name_its_first_step_and_its_times(api):
    body = {"observations": [4.0, 8.0], "times": [T0, T0 + HOUR], "step": 11}
    assert api.send("PUT", "/v1/models/hourly/clients/c/history", body).json["step"] == 12
    view = api.view(model="hourly")
    assert (view["step"], view["last_time"]) == (12, iso_time(T0 + HOUR))


def test_a_client_can_be_inspected(api):
    for value in (4.0, 8.0, 6.0):
        api.predict(value)
    view = api.view()
    live = view.pop("live")
    assert view.pop("record_bytes") > 100
    assert view == {
        "model": "toy",
        "client": "c",
        "label": "stable",
        "version": 1,
        "fingerprint": "00" * 32,
        "step": 3,
        "context": 3,
        "context_kept": 3,
        "last_time": None,
        "created": "2023-11-14T22:13:20.000Z",
        "touched": "2023-11-14T22:13:20.000Z",
        "expires": "2023-11-21T22:13:20.000Z",
        "scored": 2,
    }
    assert set(live["a"]) == {"mae", "rmse", "naive_rmse", "skill", "coverage", "factor"}
    assert live["a"]["mae"] > 0


def test_clients_are_listed_by_pages_until_there_is_no_next(api):
    for i in range(7):
        api.predict(1.0, client=f"c{i}")
    found, after = [], None
    for _ in range(10):
        query = {"limit": "3"} | ({} if after is None else {"after": after})
        page = api.send("GET", "/v1/models/toy/clients", query_string=query).json
        found += page["clients"]
        after = page["next"]
        if after is None:
            break
    assert sorted(found) == [f"c{i}" for i in range(7)]
    assert after is None


def test_clients_of_different_models_are_apart(api):
    api.predict(1.0)
    assert api.view(model="hourly") is None
    assert api.send("GET", "/v1/models/hourly/clients").json["clients"] == []


def test_gates_are_told_for_the_last_observations(api):
    for value in (4.0, 8.0, 6.0):
        api.predict(value)
    trace = api.send("GET", "/v1/models/toy/clients/c/gates?last=2").json
    assert trace["features"] == ["a"]
    assert trace["observations"] == [[8.0], [6.0]]
    (layer,) = trace["layers"]
    assert (layer["layer"], layer["cell"], layer["units"]) == ("leak", "leak", 1)
    assert layer["gates"] == {"kept": [[2.0], [5.0]], "read": [[8.0], [6.0]]}


def test_a_filled_step_is_null_among_the_observations(api):
    api.predict(4.0, model="hourly", time=T0)
    api.predict(8.0, model="hourly", time=T0 + 2 * HOUR)
    trace = api.send("GET", "/v1/models/hourly/clients/c/gates").json
    assert trace["observations"] == [[4.0], [None], [8.0]]


def test_what_is_served_is_listed_with_its_contract(api):
    listed = api.send("GET", "/v1/models").json["models"]
    assert [model["name"] for model in listed] == ["half", "hourly", "toy", "weather"]
    weather = api.send("GET", "/v1/models/weather").json
    assert weather == listed[3]
    assert weather["features"][2] == {"name": "pressure", "unit": "hPa", "minimum": 100.0, "maximum": 2000.0}
    assert (weather["labels"], weather["version"], weather["versions"]) == ({"stable": 1}, 1, [1])
    assert weather["interval_s"] == HOUR
    assert weather["looks_ahead"] is True
    assert api.send("GET", "/v1/models/half").json["looks_ahead"] is False


def test_a_versions_manifest_is_told(api):
    assert api.send("GET", "/v1/models/toy/versions/1").json == {"version": 1, "manifest": {}}


def test_a_head_request_is_answered_like_a_get_without_the_body(api):
    answer = api.send("HEAD", "/v1/models")
    assert (answer.status_code, answer.get_data()) == (200, b"")


@pytest.mark.parametrize(
    "time",
    [T0, int(T0), "2023-11-14T00:00:00Z", "2023-11-14T00:00:00+00:00", "2023-11-14T01:00:00+01:00", "20231114T000000Z"],
)
def test_one_moment_can_be_written_in_several_ways(api, time):
    api.predict(4.0, model="hourly", time=time)
    assert api.view(model="hourly")["last_time"] == "2023-11-14T00:00:00.000Z"
    assert parse_time(time, "time") == T0


def test_times_no_calendar_holds_are_told_as_null():
    assert iso_time(1e300) is None
    assert iso_time(None) is None


def test_an_answer_is_plain_json(api):
    answer = api.post({"observation": 4.0})
    assert answer.content_type == "application/json"
    json.loads(answer.get_data())
