"""Whatever a body holds, the answer is a right one or a clear refusal, and a refusal moves nothing."""

import json

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.service.http.conftest import Api, is_problem

numbers = st.one_of(
    st.floats(width=64),
    st.integers(-(10**40), 10**40),
    st.sampled_from([0, -0.0, 1e-320, 3.4028235e38, 3.5e38, float("nan"), float("inf"), True, False]),
)
anything = st.recursive(
    st.one_of(st.none(), numbers, st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
observations = st.one_of(
    numbers,
    st.lists(numbers, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["temperature", "dew_point", "pressure", "a", "x"]), numbers, max_size=4),
    anything,
)
times = st.one_of(
    st.floats(1.69e9, 1.71e9), st.integers(-(10**20), 10**20), st.datetimes().map(str), st.text(max_size=30), anything
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "observation": observations,
        "observations": st.lists(observations, max_size=7) | anything,
        "step": st.integers(-2, 5) | anything,
        "time": times,
        "times": st.lists(times, max_size=3) | anything,
        "horizon": st.integers(-1, 5) | anything,
        "gap": st.sampled_from(["fill", "restart", "reject", "x"]) | anything,
        "return": st.sampled_from(["last", "all", "x"]) | anything,
        "other": anything,
    },
)
steady = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)  # the same examples in every run: what fails here fails for everybody


def absorbed_or_refused(api, body, model, verb="predict", method="POST"):
    before = api.record(model=model)
    answer = api.send(method, f"/v1/models/{model}/clients/c/{verb}", body)
    event(f"answered {answer.status_code}")
    if answer.status_code == 200:
        assert api.record(model=model) is not None
        assert answer.json["step"] >= 1
    else:
        assert answer.status_code in (400, 409, 422), answer.get_data(as_text=True)
        is_problem(answer, answer.status_code, answer.json["code"])
        assert api.record(model=model) == before


@steady
@given(body=bodies, model=st.sampled_from(["toy", "hourly", "weather", "half"]))
def test_any_object_is_absorbed_or_refused(body, model):
    api = Api()
    api.predict({"toy": 1.0, "hourly": 1.0, "weather": [1.0, 1.0, 1000.0], "half": [1.0, 1.0]}[model], model=model)
    absorbed_or_refused(api, json.dumps(body).encode(), model)
    absorbed_or_refused(api, json.dumps(body).encode(), model, "history", "PUT")


@steady
@given(body=st.one_of(st.binary(max_size=60), anything.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_absorbed_or_refused(body):
    absorbed_or_refused(Api(), body, "toy")


@steady
@given(observation=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_float32_is_taken_or_drives_the_state_out_of_range(observation):
    api = Api()
    answer = api.post({"observation": observation})
    assert answer.status_code == 200 or answer.json["code"] == "not_finite"
