"""Promise 1: stepping over HTTP gives what one offline pass of the Keras model over the whole series gives."""

import itertools
import json
from contextlib import contextmanager

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.offline import NAMES, SCALE, assert_equal, offline_pass
from tests.serving import running_service
from tests.stores.redis_servers import redis_server

fresh_names = (f"client-{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def offline():
    return offline_pass()


@pytest.fixture(
    scope="module",
    params=["litert, sqlite, 2 workers", "litert, memory, 1 worker", "litert, redis, 2 workers",
            "tensorflow, sqlite, 2 workers", "tensorflow, memory, 1 worker"],
)  # fmt: skip
def service(request, tiny_repository, tmp_path_factory):
    engine, store, workers = request.param.split(", ")
    with (
        state_url(store, tmp_path_factory.mktemp("state")) as url,
        running_service(
            tiny_repository,
            url,
            workers=int(workers[0]),
            module="tests.patience",
            engine=engine,
            adaptive_intervals=False,
        ) as running,
        requests.Session() as session,
    ):
        yield running.url, session


@contextmanager
def state_url(store, folder):
    """The URL of an empty store of a kind."""
    if store == "redis":
        with redis_server(folder) as server:
            yield server.url
    else:
        yield "memory://" if store == "memory" else f"sqlite:///{folder}/s"


value = st.floats(-50, 1050, width=32)
series = st.lists(st.tuples(value, value, value), min_size=1, max_size=25)


@st.composite
def interleavings(draw):
    """Some clients' series, and an order of requests that absorbs each in pieces of 1 to 7 observations."""
    whole = draw(st.lists(series, min_size=1, max_size=4))
    left, order = {i: len(s) for i, s in enumerate(whole)}, []
    while left:
        client = draw(st.sampled_from(sorted(left)))
        piece = draw(st.integers(1, min(7, left[client])))
        order.append((client, piece))
        left[client] -= piece
        if not left[client]:
            del left[client]
    return whole, order


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(interleavings())
def test_http_answers_equal_the_offline_pass_at_every_step(service, offline, drawn):
    url, session = service
    whole, order = drawn
    names = [next(fresh_names) for _ in whole]
    expected = [offline(observations) for observations in whole]
    done = [0] * len(whole)
    for client, piece in order:
        at = done[client]
        body = {
            "observations": [list(row) for row in whole[client][at : at + piece]],
            "step": at + 1,
            "return": "all",
        }
        answer = session.post(f"{url}/v1/models/tiny/clients/{names[client]}/predict", json=body, timeout=30).json()
        assert answer["step"] == at + piece, answer
        assert len(answer["predictions"]) == piece
        for i, prediction in enumerate(answer["predictions"]):
            assert prediction["step"] == at + i + 1
            assert_equal(prediction["prediction"], expected[client][at + i])
        assert_equal(answer["prediction"], expected[client][at + piece - 1])
        done[client] = at + piece


@pytest.mark.parametrize("lines", [False, True], ids=["json", "lines"])
def test_bulk_answers_equal_the_offline_pass_at_every_step(service, offline, lines):
    """Sixty clients at unlike places of their series, in calls of forty drawn at random; some bring several."""
    url, session = service
    rng = np.random.default_rng(7)
    whole = rng.normal([10, 5, 1010], [9, 7, 8], (60, 50, 3)).astype(np.float32)
    names = [next(fresh_names) for _ in whole]
    expected, done = [offline(series) for series in whole], [0] * len(whole)
    for _ in range(50):
        chosen = [int(c) for c in rng.choice(len(whole), 40, replace=False) if done[c] < len(whole[c])]
        items = []
        for c in chosen:
            n = min(int(rng.choice([1, 1, 1, 1, 1, 1, 1, 3])), len(whole[c]) - done[c])
            rows = whole[c, done[c] : done[c] + n].tolist()
            items.append({"client": names[c], "observations": rows, "step": done[c] + 1})
            if n == 1:
                items[-1]["observation"] = items[-1].pop("observations")[0]
            done[c] += n
        for c, item, answer in zip(chosen, items, bulk(session, url, items, lines), strict=True):
            assert (answer.get("client"), answer.get("step")) == (item["client"], done[c]), answer
            assert_equal(answer["prediction"], expected[c][done[c] - 1])
    assert max(done) >= 40


def bulk(session, url, items, lines):
    """The answers to items, in one JSON body or in lines."""
    if not items:
        return []
    path = f"{url}/v1/models/tiny/predict"
    if lines:
        body = b"\n".join(json.dumps(item).encode() for item in items)
        answer = session.post(path, data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=30)
        return [json.loads(line) for line in answer.content.splitlines()]
    return session.post(path, json={"items": items}, timeout=30).json()["results"]


def test_a_primed_client_goes_on_as_the_offline_pass_does(service, offline):
    url, session = service
    rng = np.random.default_rng(5)
    whole = rng.normal([10, 5, 1010], [9, 7, 8], (300, 3)).astype(np.float32)
    expected = offline(whole)
    client = f"{url}/v1/models/tiny/clients/{next(fresh_names)}"
    primed = session.put(f"{client}/history", json={"observations": whole[:250].tolist()}, timeout=30).json()
    assert_equal(primed["prediction"], expected[249])
    for t in range(250, 300):
        answer = session.post(f"{client}/predict", json={"observation": whole[t].tolist()}, timeout=30).json()
        assert_equal(answer["prediction"], expected[t])


def test_looking_ahead_equals_the_offline_pass_over_its_own_predictions(service, offline):
    url, session = service
    whole = np.random.default_rng(6).normal([10, 5, 1010], [9, 7, 8], (20, 3)).astype(np.float32)
    client = f"{url}/v1/models/tiny/clients/{next(fresh_names)}"
    session.put(f"{client}/history", json={"observations": whole.tolist()}, timeout=30)
    answer = session.get(f"{client}/forecast?horizon=5", timeout=30).json()
    for ahead in answer["forecast"]:
        row = offline(whole)[-1]
        for k, name in enumerate(NAMES):
            assert abs(ahead["prediction"][name]["value"] - row[k, 0]) <= 1e-5 * max(abs(row[k, 0]), SCALE)
        whole = np.concatenate((whole, row[None, :, 0]))
