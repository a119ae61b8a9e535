"""Clients' states over two real workers: torn records, expiry and sweeping, and what the metrics tell of it."""

import json
import re
import secrets

import pytest
import requests

from service.core.types import ClientKey
from service.stores import open_store
from tests.conftest import SINGLE, TRIPLE
from tests.serving import running_service, wait_until

BOUND_S = 120.0


def url_of(service, client, model=SINGLE):
    return f"{service.url}/v1/models/{model}/clients/{client}"


def post(service, client, observation=20.0, model=SINGLE, **fields):
    return requests.post(
        f"{url_of(service, client, model)}/predict", json={"observation": observation, **fields}, timeout=30
    )


def exposition(service):
    """Every sample as {(name, labels): value}."""
    samples = {}
    for line in requests.get(f"{service.url}/metrics", timeout=30).text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match:
            samples[match[1], tuple(sorted(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))] = float(match[3])
    return samples


def sample(service, name, **labels):
    return exposition(service).get((name, tuple(sorted(labels.items()))), 0.0)


def settles(service, expected, name, **labels):
    """Waits until the sample has the value that is expected, whichever worker is asked; counts settle in time."""
    wait_until(
        lambda: [sample(service, name, **labels) for _ in range(4)] == [expected] * 4, BOUND_S, f"{name} {labels}"
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('state')}"


@pytest.fixture(scope="module")
def service(tiny_repository, state):
    with running_service(tiny_repository, state, max_clients=40, max_gap=5, sweep_s=0.5) as running:
        yield running


def test_torn_and_foreign_records_are_named_and_the_number_goes_on(service, state):
    fresh = post(service, "fresh", 21.0).json()
    for _ in range(3):
        post(service, "torn")
    store, key = open_store(state), ClientKey("default", SINGLE, "torn")
    whole = store.load(key).blob
    samples = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), len(whole) // 12)]
    samples += [whole[:size] for size in range(0, len(whole), len(whole) // 6)]
    samples += [b"RCV\xff" + whole[4:], store.load(key._replace(client="fresh")).blob, b"{}", bytes(5000)]
    for blob in samples:
        assert store.save(key, store.load(key).nonce, secrets.token_bytes(8), blob)
        for path in ("", "/forecast", "/gates"):
            assert requests.get(url_of(service, "torn") + path, timeout=30).status_code == 404
        answer = post(service, "torn", 21.0, step=1042)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["state"]["status"], body["state"]["reason"], body["step"]) == ("restarted", "corrupt", 1042)
        assert body["prediction"] == fresh["prediction"]
        assert post(service, "torn", 21.0, step=1042).headers["Idempotent-Replay"] == "true"
    store.close()
    settles(service, len(samples), "recurve_states_total", model=SINGLE, status="restarted", reason="corrupt")
    set_aside = [line for line in service.stderr().splitlines() if "set aside" in line]
    assert len(set_aside) >= len(samples)
    assert all(json.loads(line)["client"] == "torn" for line in set_aside)


def test_what_becomes_of_clients_is_in_the_metrics_of_both_workers(service):
    hour = 1_700_000_000
    row = [20.0, 10.0, 1013.0]
    for i in range(20):  # a new connection each: both workers answer
        assert post(service, f"private-{i}", row, TRIPLE, time=hour).status_code == 200
        assert post(service, f"private-{i}", row, TRIPLE, time=hour + 3 * 3600).json()["state"]["filled"] == 2
        assert post(service, f"private-{i}", row, TRIPLE, time=hour + 3 * 3600).headers["Idempotent-Replay"] == "true"
        assert post(service, f"private-{i}", row, TRIPLE, time=hour + 90 * 3600).json()["state"]["reason"] == "gap"
        assert post(service, f"private-{i}", row, TRIPLE, step=2, time=hour + 91 * 3600).status_code == 409
    states = {("started", ""): 20, ("carried", ""): 20, ("replayed", ""): 20, ("restarted", "gap"): 20}
    for (status, reason), count in states.items():
        settles(service, count, "recurve_states_total", model=TRIPLE, status=status, reason=reason)
    settles(service, 40, "recurve_filled_steps_total", model=TRIPLE)
    settles(service, 60, "recurve_observations_total", model=TRIPLE, version="1")
    settles(service, 20, "recurve_conflicts_total", model=TRIPLE, kind="step_conflict")
    settles(service, 60, "recurve_record_bytes_count", model=TRIPLE)
    assert sample(service, "recurve_record_bytes_sum", model=TRIPLE) / 60 > 300
    for verb in ("load", "save", "scan"):
        wait_until(lambda v=verb: sample(service, "recurve_store_seconds_count", verb=v) > 0, BOUND_S, verb)
    wait_until(lambda: sample(service, "recurve_clients", model=TRIPLE) == 20, BOUND_S, "the count of clients")
    text = requests.get(f"{service.url}/metrics", timeout=30).text
    assert "private-" not in text
    assert "client=" not in text


def test_beyond_the_capacity_new_clients_are_told_when_to_come_again(service):
    assert post(service, "fresh").status_code == 200
    turned_away = 0
    while turned_away == 0:  # each worker counts for itself in between: some more than 40 get in
        for i in range(200):
            answer = post(service, f"many-{i}")
            if answer.status_code == 429:
                assert 1 <= int(answer.headers["Retry-After"]) <= 10
                turned_away += 1
    settles(service, turned_away, "recurve_turned_away_total", model=SINGLE)
    assert post(service, "fresh").status_code == 200
    assert post(service, "of another model", [20.0, 10.0, 1013.0], TRIPLE).status_code == 200
    assert 40 <= kept(service) <= 80, "each of two workers may let in as many as there is room for when it counts"


def kept(service, model=SINGLE):
    """How many clients are listed."""
    clients = requests.get(f"{service.url}/v1/models/{model}/clients?limit=1000", timeout=10).json()
    assert clients["next"] is None
    return len(clients["clients"])


def test_expired_clients_are_swept_by_one_worker_and_remembered(tiny_repository, tmp_path):
    state = f"sqlite:///{tmp_path / 'state'}"
    settings = {"idle_ttl_s": 1.0, "sweep_s": 0.2}
    with running_service(tiny_repository, state, **settings) as service:
        for i in range(30):
            assert post(service, f"c{i}", step=1).status_code == 200
        settles(service, 30, "recurve_swept_clients_total", model=SINGLE)
        listing = requests.get(f"{service.url}/v1/models/{SINGLE}/clients", timeout=30).json()
        assert listing["clients"] == []
        gone = requests.get(url_of(service, "c7"), timeout=30)
        assert (gone.status_code, gone.json()["code"]) == (404, "client_not_found")
        assert gone.json()["last_seen"].startswith("20")
        back = post(service, "c7", step=2).json()
        assert (back["step"], back["state"]["status"], back["state"]["reason"]) == (2, "restarted", "expired")
        assert back["state"]["last_seen"] == gone.json()["last_seen"]
        assert post(service, "c8", step=1).json()["expected_step"] == 2
        assert requests.delete(url_of(service, "c8"), timeout=30).status_code == 204
        assert post(service, "c8", step=1).json()["state"]["status"] == "started"
        assert sample(service, "recurve_sweeps_total", outcome="done") > 0
        assert sample(service, "recurve_sweep_lease") in (0, 1)
        assert {labels for name, labels in exposition(service) if name == "recurve_active_clients"} == {
            (("model", SINGLE),),
            (("model", TRIPLE),),
        }
        assert service.terminate() == 0
    store = open_store(state)
    assert store.load(ClientKey("default", SINGLE, "c1")) is None
    assert store.load(ClientKey("~expired~default", SINGLE, "c1")) is not None
    store.close()


def test_tombstones_are_dropped_after_their_time(tiny_repository, tmp_path):
    settings = {"idle_ttl_s": 0.5, "sweep_s": 0.2, "tombstone_s": 0.5}
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}", **settings) as service:
        post(service, "c")
        settles(service, 1, "recurve_dropped_total", kind="tombstone")
        assert post(service, "c", step=1).json()["state"]["status"] == "started"
