"""Exactly once, over real workers: whatever is lost on the way, a retry is free and no step is taken twice."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.conftest import SINGLE, TRIPLE
from tests.serving import ROOT, running_service, wait_until

BOUND_S = 120.0
WAYS = ["by step", "by key", "by time"]


@pytest.fixture(scope="module")
def service(tiny_repository, tmp_path_factory):
    """One service for the tests that leave it as it is."""
    with running_service(tiny_repository, f"sqlite:///{tmp_path_factory.mktemp('state')}") as running:
        yield running


def post(url, client, body, model=SINGLE, **options):
    return requests.post(f"{url}/v1/models/{model}/clients/{client}/predict", json=body, timeout=30, **options)


def protected(way, n):
    """The n-th request of a client as (body, headers), protected in one way against being counted twice."""
    body = {"observation": 20.0 + n}
    if way == "by step":
        return {**body, "step": n}, {}
    if way == "by time":
        return {**body, "time": 1_700_000_000 + 3600 * n}, {}
    return body, {"Idempotency-Key": f"request-{n}"}


def step_of(url, client):
    return requests.get(f"{url}/v1/models/{SINGLE}/clients/{client}", timeout=30).json()["step"]


@pytest.fixture
def killing(tmp_path, monkeypatch):
    """Says whom the next commit of a service that is started from now on kills."""
    mark = tmp_path / "kill"
    monkeypatch.setenv("KILL_AFTER_COMMIT", str(mark))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent / "killed_after_commit"), str(ROOT)]))

    def kill(whom):
        mark.write_text(whom)

    return kill


@pytest.mark.parametrize("whom", ["worker", "service"])
@pytest.mark.parametrize("way", WAYS)
def test_killed_after_the_commit_and_before_the_reply_a_retry_gets_the_answer_and_takes_no_step(
    tiny_repository, tmp_path, killing, whom, way
):
    state = f"sqlite:///{tmp_path / 'state'}"
    with running_service(tiny_repository, state) as service:
        alone = [post(service.url, "alone", protected("by step", n)[0]).json() for n in range(1, 6)]
        for n in (1, 2):
            body, headers = protected(way, n)
            assert post(service.url, "c", body, headers=headers).status_code == 200
        killing(whom)
        body, headers = protected(way, 3)
        with pytest.raises(requests.ConnectionError):
            post(service.url, "c", body, headers=headers)
        assert not (tmp_path / "kill").exists()
        if whom == "worker":
            goes_on(service, "c", way, alone)
        else:
            service.process.wait(BOUND_S)
    if whom == "service":
        with running_service(tiny_repository, state) as service:
            goes_on(service, "c", way, alone)


def test_killed_after_a_state_was_moved_and_before_the_reply_the_same_again_is_answered_and_moves_nothing(
    tiny_repository, tmp_path, killing
):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}") as service:
        for n in (1, 2, 3):
            assert post(service.url, "c", {"observation": 20.0 + n}).status_code == 200
        clients = f"{service.url}/v1/models/{SINGLE}/clients"
        document = requests.get(f"{clients}/c/state", timeout=30).content
        moves = {
            "imported": lambda: requests.put(f"{clients}/imported/state", data=document, timeout=30),
            "forked": lambda: requests.post(f"{clients}/c/fork", json={"to": "forked"}, timeout=30),
        }
        for client, move in moves.items():
            killing("worker")
            with pytest.raises(requests.ConnectionError):
                move()
            wait_until(lambda: len(service.workers()) == 2 and service.status("/readyz") == 200, BOUND_S, "workers")
            kept = requests.get(f"{clients}/{client}/state", timeout=30).json()
            again = move()
            assert (again.status_code, again.headers["Idempotent-Replay"], again.json()["step"]) == (200, "true", 3)
            assert requests.get(f"{clients}/{client}/state", timeout=30).json() == kept
        following = [post(service.url, client, {"observation": 30.0}).json() for client in ("c", "imported", "forked")]
        assert [answer["step"] for answer in following] == [4, 4, 4]
        assert following[1]["prediction"] == following[2]["prediction"] == following[0]["prediction"]


def goes_on(service, client, way, alone):
    """The lost request again, from several connections, then the next ones: all as if nothing had happened."""
    wait_until(lambda: len(service.workers()) == 2 and service.status("/readyz") == 200, BOUND_S, "both workers")
    body, headers = protected(way, 3)
    for _ in range(5):
        again = post(service.url, client, body, headers=headers)
        assert (again.status_code, again.headers["Idempotent-Replay"]) == (200, "true")
        assert again.json()["step"] == 3
        assert again.json()["prediction"] == alone[2]["prediction"]
        assert again.json()["state"] == alone[2]["state"]
    assert step_of(service.url, client) == 3
    for n in (4, 5):
        body, headers = protected(way, n)
        answer = post(service.url, client, body, headers=headers)
        assert "Idempotent-Replay" not in answer.headers
        assert (answer.json()["step"], answer.json()["prediction"]) == (n, alone[n - 1]["prediction"])


@pytest.mark.parametrize("way", WAYS)
def test_the_same_request_from_many_connections_at_once_is_absorbed_once(service, way):
    client = f"crowd {way}"
    for n in range(1, 6):
        body, headers = protected(way, n)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _, b=body, h=headers: post(service.url, client, b, headers=h), range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotent-Replay" not in answer.headers for answer in answers) == 1
        assert step_of(service.url, client) == n


def test_unnumbered_requests_at_once_are_each_absorbed_once_in_some_order(service):
    """The order is told by the steps; the predictions are those of the observations sent one by one in it."""

    def send(i):
        answer = post(service.url, "unnumbered", {"observation": 10.0 + i})
        assert answer.status_code == 200
        return answer.json()["step"], 10.0 + i, answer.json()["prediction"]

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(send, range(96)))
    assert [step for step, _, _ in answers] == list(range(1, 97))
    alone = [post(service.url, "in that order", {"observation": value}).json() for _, value, _ in answers]
    assert [prediction for _, _, prediction in answers] == [answer["prediction"] for answer in alone]


def test_numbered_requests_at_once_are_absorbed_in_order_or_refused_and_never_twice(service):
    """Eight senders race through the same numbered series; what one absorbs the others are told."""
    values = [15.0 + i / 7 for i in range(30)]

    def send(thread):
        absorbed, n = 0, 1
        while n <= len(values):
            answer = post(service.url, "raced", {"observation": values[n - 1], "step": n})
            if answer.status_code == 409:
                n = answer.json()["expected_step"]
                continue
            assert answer.json()["step"] == n
            absorbed += "Idempotent-Replay" not in answer.headers
            n += 1
        return absorbed

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(send, range(8))) == len(values)
    alone = [post(service.url, "not raced", {"observation": value}).json() for value in values]
    last = post(service.url, "raced", {"observation": values[-1], "step": len(values)})
    assert (last.json()["step"], last.json()["prediction"]) == (30, alone[-1]["prediction"])


def test_several_observations_are_absorbed_whole_or_not_at_all_whoever_races(service):
    """Each request brings three; every answer's step is a multiple of three."""

    def send(i):
        rows = [[20.0 + i, 10.0, 1000.0 + i]] * 3
        return post(service.url, "triples", {"observations": rows}, TRIPLE).json()["step"]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, range(32))) == list(range(3, 97, 3))
