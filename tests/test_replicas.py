"""Two replicas of the service over one Redis: any of them continues any client, and both outlive Redis's absence."""

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import requests

from tests.conftest import SINGLE, TRIPLE
from tests.offline import assert_equal, offline_pass
from tests.serving import running_service, wait_until
from tests.stores.redis_servers import RedisServer, redis_server

BOUND_S = 120.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis"), "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@contextmanager
def two_replicas(models, url, module):
    settings = {"workers": 2, "adaptive_intervals": False, "module": module}
    with running_service(models, url, **settings) as one, running_service(models, url, **settings) as other:
        yield one, other


@pytest.fixture(scope="module")
def replicas(tiny_repository, redis):
    """Two that wait for Redis as long as it takes."""
    with two_replicas(tiny_repository, redis.url, "tests.patience") as both:
        yield both


@pytest.fixture
def session():
    with requests.Session() as session:
        yield session


def predict_url(replica, client, model=TRIPLE):
    return f"{replica.url}/v1/models/{model}/clients/{client}/predict"


def test_clients_that_hop_between_replicas_get_the_offline_answers(replicas, session):
    seed = secrets.randbits(32)
    print("seed", seed)
    chance = random.Random(seed)
    offline = offline_pass()
    rng = np.random.default_rng(seed)
    series = {f"hopper-{n}": rng.normal([10, 5, 1010], [9, 7, 8], (30, 3)).astype(np.float32) for n in range(6)}
    expected = {client: offline(whole) for client, whole in series.items()}
    done = dict.fromkeys(series, 0)
    while left := [client for client, whole in series.items() if done[client] < len(whole)]:
        client = chance.choice(left)
        at = done[client]
        piece = series[client][at : at + chance.randint(1, 3)]
        body = {"observations": piece.tolist(), "step": at + 1}
        for retry in range(1 + (chance.random() < 0.2)):  # now and then once more, wherever it gets to
            answer = session.post(predict_url(chance.choice(replicas), client), json=body, timeout=30)
            assert answer.status_code == 200, answer.text
            assert (answer.headers.get("Idempotent-Replay") == "true") == (retry > 0)
            assert answer.json()["step"] == at + len(piece)
            assert_equal(answer.json()["prediction"], expected[client][at + len(piece) - 1])
        done[client] = at + len(piece)
    one, other = ({*session.get(f"{r.url}/v1/models/{TRIPLE}/clients", timeout=30).json()["clients"]} for r in replicas)
    assert one == other >= set(series)


def test_one_client_posting_to_both_at_once_takes_every_step_once(replicas):
    def post(n):
        url = predict_url(replicas[n % 2], "crowd", SINGLE)
        answer = requests.post(url, json={"observation": float(n)}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["step"]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(post, range(64))) == list(range(1, 65))


@pytest.fixture
def as_they_are(tiny_repository, redis):
    """Two replicas with the service's own patience."""
    with two_replicas(tiny_repository, redis.url, "service") as both:
        yield both


def test_while_redis_is_away_they_are_not_ready_and_go_on_when_it_is_back(as_they_are, redis, session):
    replicas = as_they_are
    first = answered(session, predict_url(replicas[0], "patient", SINGLE), {"observation": 1.0, "step": 1})
    assert first["step"] == 1
    redis.kill()
    try:
        for replica in replicas:
            refused = session.post(predict_url(replica, "patient", SINGLE), json={"observation": 2.0}, timeout=30)
            assert refused.status_code == 503
            assert refused.json()["code"] == "store_unavailable"
            assert int(refused.headers["Retry-After"]) >= 1
            assert replica.status("/readyz") == 503
            assert replica.status("/livez") == 200
    finally:
        redis.start()
    answer = answered(session, predict_url(replicas[1], "patient", SINGLE), {"observation": 2.0, "step": 2})
    assert answer["step"] == 2
    assert answer["state"]["status"] == "carried"
    for replica in replicas:
        wait_until(lambda replica=replica: replica.status("/readyz") == 200, BOUND_S, "readiness")


def answered(session, url, body):
    """The answer to a numbered predict that is sent again, which is free, until there is one: each worker finds out for
    itself, within a second, that Redis is back."""
    answers = []

    def ask():
        answers.append(session.post(url, json=body, timeout=30))
        return answers[-1].status_code != 503

    wait_until(ask, BOUND_S, "an answer")
    assert answers[-1].status_code == 200, answers[-1].text
    return answers[-1].json()


def test_a_service_starts_before_its_redis_and_never_tells_its_password(tiny_repository, tmp_path, session):
    server = RedisServer(tmp_path, "--requirepass", "hunter2")
    url = f"redis://:hunter2@127.0.0.1:{server.port}"
    with running_service(tiny_repository, url, wait_ready=False, access_log=True, log_level="debug") as running:
        assert running.status("/readyz") == 503
        refused = session.post(predict_url(running, "early", SINGLE), json={"observation": 1.0}, timeout=30)
        assert refused.status_code == 503
        server.start(wait=False)
        try:
            answer = answered(session, predict_url(running, "early", SINGLE), {"observation": 1.0, "step": 1})
            assert answer["step"] == 1
            wait_until(lambda: running.status("/readyz") == 200, BOUND_S, "readiness")
        finally:
            server.kill()
        said = running.stdout() + running.stderr() + refused.text
    assert "127.0.0.1" in said
    assert "hunter2" not in said
