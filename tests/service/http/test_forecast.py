"""Looking ahead after what is only supposed: the client stays where it stands."""

import numpy as np
import pytest

from tests.fakes import make_spec, serve
from tests.service.http.conftest import HalfEngine, is_problem

PATH = "/v1/models/{}/clients/c/forecast"


def forecast(api, body, model="toy"):
    return api.send("POST", PATH.format(model), body)


def values(answer, target="a"):
    return [ahead["prediction"][target]["value"] for ahead in answer.json["forecast"]]


def test_what_is_supposed_is_answered_as_if_it_had_been_absorbed_and_moves_nothing(api):
    for value in (4.0, 8.0):
        api.predict(value)
        api.predict(value, client="really")
    before = api.record()
    supposed = forecast(api, {"observations": [6.0, 1.0], "horizon": 3})
    assert supposed.status_code == 200
    assert api.record() == before
    for value in (6.0, 1.0):
        api.predict(value, client="really")
    absorbed = api.send("GET", "/v1/models/toy/clients/really/forecast?horizon=3")
    assert supposed.json["forecast"] == absorbed.json["forecast"]
    assert supposed.json["prediction"] == absorbed.json["prediction"]
    assert (supposed.json["step"], supposed.json["state"]["context"], supposed.json["previous"]) == (4, 4, None)


def test_with_nothing_supposed_it_is_the_plain_forecast(api):
    api.predict(4.0)
    assert forecast(api, {}).json == api.send("GET", PATH.format("toy")).json
    assert forecast(api, {"horizon": 2}).json == api.send("GET", PATH.format("toy") + "?horizon=2").json


def test_one_observation_may_be_supposed_by_name(api):
    api.predict(4.0)
    by_name = forecast(api, {"observation": {"a": 8.0}, "horizon": 2}).json
    assert by_name == forecast(api, {"observations": [8.0], "horizon": 2}).json


def test_what_is_known_of_the_future_takes_the_place_of_predictions(api):
    api.predict(4.0)  # the leak halves: 4 -> 2, and each step is half of what it sees and half of what it was
    assert values(forecast(api, {"horizon": 3, "future": [{}, {}]})) == values(forecast(api, {"horizon": 3}))
    first, second, third = values(forecast(api, {"horizon": 3, "future": [{"a": 10.0}, {}]}))
    assert (first, second) == (2.0, 6.0)
    assert third == 6.0  # fed back what was predicted of the step before
    assert values(forecast(api, {"horizon": 3, "future": [{"a": 10.0}, {"a": 0.0}]})) == [2.0, 6.0, 3.0]


def test_a_model_that_predicts_not_all_its_features_looks_ahead_if_the_others_are_given(api, refused):
    api.predict([4.0, 1.0], model="half")
    without = forecast(api, {"horizon": 3}, "half")
    assert "does not predict: b" in is_problem(without, 422, "unsupported")["detail"]
    given = forecast(api, {"horizon": 3, "future": [{"b": 2.0}, {"b": 3.0}]}, "half")
    assert given.status_code == 200
    assert len(values(given)) == 3
    some = lambda: forecast(api, {"horizon": 3, "future": [{"b": 2.0}, {"a": 1.0}]}, "half")  # noqa: E731
    assert "future[1].b" in refused(some, 422, "unsupported", model="half")["detail"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"horizon": 3, "future": [{}]}, "invalid", "future"),
        ({"horizon": 2, "future": [{"wind": 1.0}]}, "invalid", "future[0].wind"),
        ({"horizon": 2, "future": [{"a": "warm"}]}, "invalid", "future[0].a"),
        ({"horizon": 2, "future": [{"a": 1e39}]}, "not_finite", "future[0].a"),
        ({"horizon": 2, "future": [[1.0]]}, "invalid", "future[0]"),
        ({"horizon": 0}, "invalid", "horizon"),
        ({"horizon": 10**6}, "invalid", "horizon"),
        ({"observations": []}, "invalid", "observations"),
        ({"observations": [1.0] * 6}, "invalid", "observations"),
        ({"observation": [1.0, 2.0]}, "invalid", "observation"),
        ({"observation": 1.0, "step": 2}, "invalid", "step"),
    ],
    ids=str,
)
def test_what_can_not_be_supposed_is_named(api, refused, body, code, field):
    api.predict(1.0)
    refused(lambda: forecast(api, body), 422, code, field=field)


def test_what_is_supposed_is_held_to_the_limits_of_its_features(api, refused):
    api.predict([1.0, 1.0, 1000.0], model="weather")
    for body, field in (
        ({"observation": [1.0, 1.0, 5000.0]}, "observation.pressure"),
        ({"horizon": 2, "future": [{"pressure": 5000.0}]}, "future[0].pressure"),
    ):
        refused(lambda body=body: forecast(api, body, "weather"), 422, "invalid", model="weather", field=field)


def test_values_that_drive_the_supposed_state_out_of_range_are_refused(api, refused):
    class Exploding(HalfEngine):
        def step(self, x, state):
            with np.errstate(over="ignore"):
                return np.repeat(x[:, :, None], 3, 2), x * np.float32(1e38)

    serve(api.registry, make_spec(name="toy"), Exploding())
    api.predict(1.0)
    refused(lambda: forecast(api, {"observation": 1e30, "horizon": 1}), 422, "not_finite")


def test_there_is_nothing_to_suppose_of_an_unknown_client(api):
    is_problem(forecast(api, {"observation": 1.0}), 404, "client_not_found")
