"""Bulk predicts: items that get what a predict of their own would get, and bodies that are refused as a whole."""

import json
from itertools import pairwise
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.many.answers import Answers
from service.core.many.asked import Asked
from service.core.types import ClientKey
from service.http import render
from service.http.context import Collaborators
from service.http.many import text
from service.http.many.call import ManyPredicts
from service.http.many.replay import replay
from service.http.output import encode
from tests.fakes import make_spec
from tests.service.http.conftest import Api, is_problem

NDJSON = {"Content-Type": "application/x-ndjson"}
NAMES = [f"c{n}" for n in range(12)]


def bulk(api, items, model="toy"):
    answer = api.send("POST", f"/v1/models/{model}/predict", {"items": items})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.json["model"] == model
    assert len(answer.json["results"]) == len(items)
    return answer.json["results"]


def lines(api, body, model="toy"):
    answer = api.send("POST", f"/v1/models/{model}/predict", body, headers=NDJSON)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.content_type == "application/x-ndjson"
    return [json.loads(line) for line in answer.get_data().splitlines()]


def alone(api, item, model):
    """What a request of its own would say to an item."""
    if type(item) is not dict:
        return {"client": None, "status": 422, "code": "invalid"}
    body = {name: value for name, value in item.items() if name not in ("client", "idempotency_key")}
    key = item.get("idempotency_key")
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = api.send("POST", f"/v1/models/{model}/clients/{quote(item['client'])}/predict", body, headers=headers)
    if answer.status_code != 200:
        problem = answer.get_json(force=True)
        problem.pop("request_id")
        again = answer.headers.get("Retry-After")
        if again is not None:
            problem["retry_after"] = int(again)
        return {"client": item["client"], **problem}
    replayed = {"replayed": True} if "Idempotent-Replay" in answer.headers else {}
    return {**answer.json, **replayed}


def of_one(told):
    """A refusal of an item that names all its fields, without those that only an item has."""
    return {
        name: value.removesuffix(", client, idempotency_key") if name in ("detail", "error") else value
        for name, value in told.items()
    }


observation = st.one_of(
    st.floats(-100, 100, width=32),
    st.integers(-5, 5),
    st.lists(st.one_of(st.floats(-9, 9), st.none(), st.booleans(), st.text(max_size=2)), max_size=2),
    st.fixed_dictionaries({"a": st.one_of(st.floats(-9, 9), st.none())}),
    st.sampled_from([None, True, "1", 1e39, 10**30, {}, {"b": 1}, [[1.0]]]),
)
special = st.fixed_dictionaries(
    {"client": st.sampled_from([*NAMES, "new-1", "new-2", "é", 'quo"te,', '"'])},
    optional={
        "observation": observation,
        "observations": st.one_of(st.lists(st.floats(-9, 9, width=32), max_size=6), st.just("x")),
        "step": st.one_of(st.integers(-1, 5), st.sampled_from([None, True, "1", 1.5, 2**60])),
        "time": st.one_of(
            st.sampled_from([None, 1_699_990_000, 1_700_000_000.5, "2023-11-14T22:13:20Z", "noon", [], 1e300])
        ),
        "idempotency_key": st.sampled_from([None, "k1", "k2"]),
        "gap": st.sampled_from([None, "fill", "restart", "reject", "x", 5]),
        "horizon": st.sampled_from([1, 2, 0, "3"]),
        "return": st.sampled_from(["last", "all", "some"]),
        "colour": st.just("red"),
    },
)
usual = st.builds(lambda c, x: {"client": c, "observation": x}, st.sampled_from(NAMES), st.floats(-9, 9))
items = st.one_of(special, special, usual, st.sampled_from([None, 7, "x", [1]]))


@settings(max_examples=150, deadline=None)
@given(calls=st.lists(st.lists(items, min_size=1, max_size=8), min_size=1, max_size=3), as_lines=st.booleans())
def test_every_item_is_told_what_a_request_of_its_own_would_be(calls, as_lines):
    together, apart = Api(), Api()
    for api in (together, apart):
        bulk(api, [{"client": name, "observation": 1.5} for name in NAMES])
    for call in calls:
        everyone = [{"client": name, "observation": 2.25} for name in NAMES]
        call = everyone[:6] + call + everyone[6:]
        for api in (together, apart):
            api.clock.now += 60
        expected = [alone(apart, item, "toy") for item in call]
        if as_lines:
            found = lines(together, b"\n".join(json.dumps(item).encode() for item in call))
        else:
            found = bulk(together, call)
        for item, ours, theirs in zip(call, found, expected, strict=True):
            if type(item) is dict:
                assert of_one(ours) == theirs
            else:
                assert theirs.items() <= ours.items()
    names = [*NAMES, "new-1", "new-2", "é"]
    assert [together.view(name) for name in names] == [apart.view(name) for name in names]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"{", 400, "malformed_body"),
        (b"[]", 400, "malformed_body"),
        (b"\xff", 400, "malformed_body"),
        (b'{"items": [{"client": "c", "observation": NaN}]}', 400, "malformed_body"),
        (b"[" * 100_0 + b"]" * 1000, 400, "malformed_body"),
        ({}, 422, "invalid"),
        ({"items": []}, 422, "invalid"),
        ({"items": {}}, 422, "invalid"),
        ({"items": [{}], "model": "toy"}, 422, "invalid"),
        ({"items": [{"client": "c0", "observation": 1}] * 31}, 422, "invalid"),
        (b" " * 4001, 413, "body_too_large"),
    ],
)
def test_a_body_that_holds_no_items_is_refused_as_a_whole(api, refused, body, status, code):
    bulk(api, [{"client": "c", "observation": 1.0}])
    refused(lambda: api.send("POST", "/v1/models/toy/predict", body), status, code)


def test_a_bulk_request_of_an_unknown_model_a_query_or_a_compressed_body_is_refused(api):
    for headers in ({}, NDJSON):
        body = b'{"items": [{"client": "c", "observation": 1}]}'
        is_problem(api.send("POST", "/v1/models/none/predict", body, headers=headers), 404, "model_not_found")
        is_problem(api.send("POST", "/v1/models/toy/predict?x=1", body, headers=headers), 422, "invalid")
        encoded = {**headers, "Content-Encoding": "gzip"}
        is_problem(api.send("POST", "/v1/models/toy/predict", body, headers=encoded), 415, "body_encoded")
    assert api.view() is None


def test_an_item_that_is_refused_names_its_client_and_moves_nothing(api):
    bulk(api, [{"client": "c", "observation": 1.0}])
    before = api.view()
    wrong, missing, right = bulk(
        api, [{"client": "c", "observation": "x"}, {"observation": 1.0}, {"client": "d", "observation": 1.0}]
    )
    assert (wrong["client"], wrong["status"], wrong["code"], wrong["field"]) == ("c", 422, "invalid", "observation")
    assert (missing["client"], missing["status"], missing["field"]) == (None, 422, "client")
    assert right["step"] == 1
    assert api.view() == before


def test_a_retry_of_a_whole_call_moves_nothing_and_says_so(api):
    call = [{"client": name, "observation": 1.0, "step": 1} for name in NAMES]
    first = bulk(api, call)
    again = bulk(api, call)
    assert again == [{**one, "replayed": True} for one in first]
    assert all(api.view(name)["step"] == 1 for name in NAMES)


def test_a_store_that_is_away_is_every_items_problem_and_worth_another_try(api):
    call = [{"client": name, "observation": 1.0} for name in NAMES]
    bulk(api, call)
    api.store.down = True
    for one in bulk(api, call):
        assert (one["status"], one["code"], one["retry_after"]) == (503, "store_unavailable", 2)
    api.store.down = False
    assert [one["step"] for one in bulk(api, call)] == [2] * 12


def test_items_are_counted_by_their_status(api):
    bulk(api, [{"client": name, "observation": 1.0} for name in NAMES])
    api.counted.clear()
    bulk(
        api, [{"client": name, "observation": 1.0} for name in NAMES] + [{"client": "c1", "observation": 1, "step": 9}]
    )
    totals = {}
    for model, version, status, number in api.counted:
        totals[model, version, status] = totals.get((model, version, status), 0) + number
    assert totals == {("toy", 1, 200): 12, ("", "", 409): 1}


# -- lines ------------------------------------------------------------------------------------------------------------


def test_a_line_that_is_no_json_is_an_error_line_and_not_the_end(api):
    told = lines(api, b'{"client": "a", "observation": 1}\nnonsense\n\n  \n[1]\n{"client": "a", "observation": 2}')
    assert [one.get("code", one.get("step")) for one in told] == [1, "malformed_body", "invalid", 2]


def test_a_line_that_is_too_long_is_an_error_line_and_not_the_end(api):
    long = b'{"client": "a", "observation": ' + b"1" * 200_000 + b"}"
    told = lines(api, b'{"client": "a", "observation": 1}\n' + long + b'\n{"client": "a", "observation": 2}\n' + long)
    assert [one.get("code", one.get("step")) for one in told] == [1, "body_too_large", 2, "body_too_large"]


def test_a_body_without_lines_has_no_answers(api):
    assert lines(api, b"") == lines(api, b"\n\n") == []


def test_a_model_that_is_gone_meanwhile_fails_its_lines_and_others_are_answered(api):
    pieces = [b'{"client": "a", "observation": 1}\n', b'{"client": "a", "observation": 2}\n{"client"', b': "b"}', b""]
    predicts = ManyPredicts(Collaborators(None, api.together, None, None, None, api.registry, api.store))
    models = dict(api.registry.models)

    def answered(read):
        parts = replay(read, lambda raw, end: predicts.answer("toy", raw, end), 1000)
        told = [json.loads(line) for part in parts for line in part.splitlines()]
        return [one.get("code", one.get("step")) for one in told]

    def goes(source, gone):
        piece = next(source)
        api.registry.replace({"hourly": models["hourly"]} if gone and b"\n{" in piece else models)
        return piece

    source = iter(pieces)
    assert answered(lambda size: goes(source, True)) == [1, "model_not_found", "invalid"]
    again = iter(pieces)
    assert answered(lambda size: goes(again, False)) == [2, 3, "invalid"]


@settings(max_examples=100, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=8), waits=st.booleans())
def test_lines_are_the_same_however_they_are_cut(cuts, waits):
    """`read` gives any pieces, and None now and then."""
    body = b"".join(b'{"n": %d}\n' % n if n % 7 else b"no\n\n" for n in range(40)) + b'{"n": 99}'
    ends = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
    pieces = [body[a:b] for a, b in pairwise(ends) if b > a]
    fed = [piece for each in pieces for piece in ((None, each) if waits else (each,))] + [b""]
    source = iter(fed)

    def answer(raw, end):
        return b"".join(json.dumps(one).encode() + end for one in raw)

    told = [json.loads(line) for line in b"".join(replay(lambda size: next(source), answer, 1000)).splitlines()]
    expected = [n if n % 7 else "malformed_body" for n in range(40)] + [99]
    assert [one.get("code", one.get("n")) for one in told] == expected


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        make_spec(),
        make_spec(("a", "b", "c")),
        make_spec(("a", "b"), predicts=("b",)),
        make_spec(interval_columns=None, residuals=None, level=None),
        make_spec(tuple(f"{n}" for n in range(60))),
        make_spec(('"', "a,b", "\u2028", "9007199254740991")),
    ],
    ids=["one", "three", "unobserved", "unbounded", "many", "odd names"],
)
def test_answers_in_columns_read_as_they_do_one_by_one(spec):
    n, k, rng = 30, len(spec.targets), np.random.default_rng(3)

    def numbers(*shape):
        found = (rng.normal(size=(n, *shape)) * 10.0 ** rng.integers(-20, 20, (n, *shape))).astype(np.float32)
        found[rng.random(found.shape) < 0.1] = np.float32(rng.integers(-2, 3))
        return found

    anomaly = numbers(k)
    anomaly[rng.random(anomaly.shape) < 0.3] = np.nan
    names = [f'client "{i}", \\" \u00e9\U0001f600' for i in range(n)]
    asked = Asked(tuple(ClientKey("t", spec.name, name) for name in names), numbers(len(spec.features)))
    answers = Answers(
        spec, asked, np.arange(n, dtype=np.uint64) + 2**52, np.arange(n, dtype=np.uint64), np.zeros(n),
        numbers(k, spec.columns), None if spec.level is None else numbers(k, 2), numbers(k), numbers(k), anomaly,
        np.zeros((n, 6 * k)),
    )  # fmt: skip
    expected = [encode(render.answer(answers.answer(at))) + b"\n" for at in range(n)]
    assert text.each(answers, b"\n") == expected
    assert text.joined(answers, b"\n") == b"".join(expected)


def test_bounds_that_are_no_numbers_are_told_as_none():
    spec = make_spec()
    one = np.ones((2, 1), np.float32)
    bounds = np.array([[[0, 1]], [[np.nan, np.nan]]], np.float32)
    asked = Asked(tuple(ClientKey("t", "toy", name) for name in "ab"), one)
    answers = Answers(spec, asked, np.array([1, 2], np.uint64), np.array([1, 2], np.uint64), np.zeros(2),
                      np.ones((2, 1, 3), np.float32), bounds, one, one, one, np.zeros((2, 6)))  # fmt: skip
    told = [json.loads(line) for line in text.joined(answers, b"\n").splitlines()]
    assert [one["prediction"]["a"]["interval"] is None for one in told] == [False, True]
