"""Bodies that are not what they should be: a clear 4xx that names the field, and nothing moves."""

import json

import numpy as np
import pytest

from service.core.types import FLOAT32_BOUND
from service.http.observations import observations_array
from service.http.schemas import HistoryBody, decode
from tests.fakes import make_spec

PREDICT = "/v1/models/toy/clients/c/predict"
GOOD = [21.0, 12.0, 1013.0]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b'{"observation": 1', b"observation=1", b"[" * 3000, b"{}x"],
    ids=repr,
)
def test_what_is_no_json_object_is_malformed(api, refused, body):
    api.predict(1.0)
    refused(lambda: api.post(body), 400, "malformed_body")


@pytest.mark.parametrize(
    ("observation", "field", "code"),
    [
        ("NaN", "observation.a", "not_finite"),
        ("Infinity", "observation.a", "not_finite"),
        ("-Infinity", "observation.a", "not_finite"),
        ("1e39", "observation.a", "not_finite"),
        ("-1e39", "observation.a", "not_finite"),
        ("1e999", "observation.a", "not_finite"),
        ("1" * 400, "observation.a", "not_finite"),
        ("true", "observation", "invalid"),
        ('"21.3"', "observation", "invalid"),
        ("null", "observation", "invalid"),
        ("[]", "observation", "invalid"),
        ("[1, 2]", "observation", "invalid"),
        ("[true]", "observation.a", "invalid"),
        ("[null]", "observation.a", "invalid"),
        ('["1"]', "observation.a", "invalid"),
        ("[[1]]", "observation.a", "invalid"),
        ("{}", "observation.a", "invalid"),
        ('{"b": 1}', "observation.b", "invalid"),
        ('{"a": 1, "b": 1}', "observation.b", "invalid"),
        ('{"a": false}', "observation.a", "invalid"),
    ],
)
def test_a_value_that_is_no_number_for_the_model_is_named(api, refused, observation, field, code):
    api.predict(1.0)
    refused(lambda: api.post(b'{"observation": %s}' % observation.encode()), 422, code, field=field)


@pytest.mark.parametrize(
    ("observations", "field"),
    [
        ([GOOD, GOOD, GOOD, [21.0, 12.0, 1e39]], "observations[3].pressure"),
        ([GOOD, [21.0, "12", 1013.0]], "observations[1].dew_point"),
        ([GOOD, [21.0, 12.0]], "observations[1]"),
        ([GOOD, 21.0], "observations[1]"),
        ([GOOD, {"temperature": 1.0, "dew_point": 1.0}], "observations[1].pressure"),
        ([{"temperature": 1.0, "dew_point": 1.0, "pressure": 1013.0, "wind": 2.0}], "observations[0].wind"),
        ([GOOD, [21.0, 12.0, 99.0]], "observations[1].pressure"),
        ([[21.0, 12.0, 2001.0]], "observations[0].pressure"),
        ([], "observations"),
        ([GOOD] * 6, "observations"),
        (GOOD, "observations[0]"),
        ("x", "observations"),
        (5, "observations"),
    ],
)
def test_the_wrong_one_of_several_is_named(api, refused, observations, field):
    api.predict(GOOD, model="weather")
    code = "not_finite" if field == "observations[3].pressure" else "invalid"
    refused(lambda: api.post({"observations": observations}, model="weather"), 422, code, model="weather", field=field)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "observation"),
        ({"observation": 1.0, "observations": [1.0]}, "observations"),
        ({"observation": 1.0, "step": 0}, "step"),
        ({"observation": 1.0, "step": 1.0}, "step"),
        ({"observation": 1.0, "step": True}, "step"),
        ({"observation": 1.0, "step": "2"}, "step"),
        ({"observation": 1.0, "step": 2**60}, "step"),
        ({"observation": 1.0, "horizon": 0}, "horizon"),
        ({"observation": 1.0, "horizon": 10**7}, "horizon"),
        ({"observation": 1.0, "gap": "ignore"}, "gap"),
        ({"observation": 1.0, "return": "first"}, "return"),
        ({"observation": 1.0, "returns": "all"}, "returns"),
        ({"observation": 1.0, "obsrevation": 2.0}, "obsrevation"),
        ({"observation": 1.0, "time": "yesterday"}, "time"),
        ({"observation": 1.0, "time": "2023-11-14T10:00:00"}, "time"),
        ({"observation": 1.0, "time": True}, "time"),
        ({"observation": 1.0, "time": [1]}, "time"),
        ({"observation": 1.0, "time": 1_699_999_999_000}, "time"),
        ({"observation": 1.0, "times": [1.0, 2.0]}, "times"),
        ({"observation": 1.0, "time": 1.0, "times": [1.0]}, "times"),
        ({"observations": [1.0, 2.0], "times": [1.0, "x"]}, "times[1]"),
        ({"observations": [1.0, 2.0], "times": [2.0, 1.0]}, "times[1]"),
        ({"observations": [1.0, 2.0], "time": 1.0}, "times"),
    ],
    ids=str,
)
def test_a_field_that_is_wrong_is_named(api, refused, fields, field):
    api.predict(1.0)
    refused(lambda: api.post(fields), 422, "invalid", field=field)


def test_an_infinite_time_is_named(api, refused):
    refused(lambda: api.post(b'{"observation": 1, "time": 1e999}'), 422, "not_finite", field="time")


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\tbed", "caf\xe9"])
def test_an_idempotency_key_that_is_no_key_is_named(api, refused, key):
    answer = lambda: api.post({"observation": 1.0}, headers={"Idempotency-Key": key})  # noqa: E731
    refused(answer, 422, "invalid", field="Idempotency-Key")


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]
)
def test_the_content_type_does_not_matter(api, content_type):
    answer = api.post(b'{"observation": 4.0}', content_type=content_type)
    assert answer.status_code == 200
    assert answer.json["step"] == 1


def test_a_compressed_body_is_415(api, refused):
    refused(lambda: api.post(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), 415, "body_encoded")


def test_a_body_of_ten_megabytes_is_413(api, refused):
    api.predict(1.0)
    body = json.dumps({"observations": [1.0] * 2_500_000}).encode()
    assert len(body) > 10_000_000
    refused(lambda: api.post(body), 413, "body_too_large", limit=4000)
    refused(lambda: api.send("PUT", "/v1/models/toy/clients/c/history", body), 413, "body_too_large", limit=20_000)


def test_a_declared_length_beyond_the_limit_is_refused_before_the_body_is_decoded(api, refused):
    refused(lambda: api.post(b"not json" * 1000), 413, "body_too_large")


def test_a_body_without_a_length_is_held_to_the_limit_too(api, refused):
    class Stream:
        def __init__(self):
            self.left = 1_000_000

        def read(self, size=-1):
            size = min(self.left, size if size >= 0 else self.left)
            self.left -= size
            return b" " * size

    stream = Stream()
    environ = {"wsgi.input": stream, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    refused(lambda: api.send("POST", PREDICT, environ_overrides=environ), 413, "body_too_large")


def test_a_body_that_ends_early_is_malformed(api, refused):
    environ = {"CONTENT_LENGTH": "40"}
    refused(lambda: api.post(b'{"observation": 1}', environ_overrides=environ), 400, "malformed_body")


def test_a_hostile_body_of_unknown_fields_is_named_by_its_first(api, refused):
    body = "{" + ",".join(f'"f{i}":0' for i in range(300)) + "}"
    refused(lambda: api.post(body.encode()), 422, "invalid", field="f0")


@pytest.mark.parametrize("part", ["{}", "[]", "0", "[[[[]]]]", '{"a":{}}'])
def test_far_too_many_values_are_refused_before_they_are_parsed(api, refused, part):
    send = lambda body: api.send("PUT", "/v1/models/toy/clients/c/history", body)  # noqa: E731
    body = '{"observations":[' + f"{part}," * 10_000 + "not even JSON"
    refused(lambda: send(body[:20_000].encode()), 422, "invalid", field="observations")


def test_as_many_observations_as_are_allowed_pass_however_they_are_written(api):
    api.clock.now = 1.7e9
    for model, one in (("toy", {"a": 1.0}), ("weather", {"temperature": 1.0, "dew_point": 1.0, "pressure": 1013.0})):
        body = {
            "observations": [one] * 50,
            "times": [f"2023-11-{1 + i // 24:02}T{i % 24:02}:00:00Z" for i in range(50)],
        }
        answer = api.send("PUT", f"/v1/models/{model}/clients/c/history", body)
        assert (answer.status_code, answer.json["step"]) == (200, 50)


def test_names_of_features_may_hold_any_punctuation():
    names = tuple("[{,}]" * 12 + str(i) for i in range(3))
    spec = make_spec(names)
    body = json.dumps({"observations": [dict.fromkeys(names, 1.0)] * 2000}).encode()
    assert len(decode(HistoryBody, body, spec, 2000).observations) == 2000


def test_a_history_is_checked_like_a_predict(api, refused):
    api.predict(1.0)
    for body, field in (
        ({"observations": [1.0] * 51}, "observations"),
        ({"observations": [1.0, "x"]}, "observations[1]"),
        ({"observations": [1.0], "horizon": 2}, "horizon"),
        ({"observations": [1.0], "return": "all"}, "return"),
    ):
        refused(
            lambda body=body: api.send("PUT", "/v1/models/toy/clients/c/history", body), 422, "invalid", field=field
        )


def test_the_largest_float32_is_finite_and_so_is_all_that_rounds_to_it(api):
    largest = float(np.finfo(np.float32).max)
    for value in (largest, -largest, float(np.nextafter(FLOAT32_BOUND, 0))):
        array = observations_array([value], "observations", api.registry.model("toy").labelled().spec)
        assert abs(array[0, 0]) == np.float32(largest)
    with np.errstate(over="ignore"):
        assert np.isinf(np.float64(FLOAT32_BOUND).astype(np.float32))


def test_observations_become_float32_as_numpy_casts_them(api):
    values = [0.1, -0.0, 1e-45, 5e-324, 16777217, 3.4e38, 10**30, 1e-30]
    array = observations_array(values, "observations", api.registry.model("toy").labelled().spec)
    assert array.dtype == np.float32
    assert array[:, 0].tobytes() == np.array(values, np.float64).astype(np.float32).tobytes()
