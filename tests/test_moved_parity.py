"""Wherever a state is moved to, its client goes on there as if nothing had happened: same answers, same retries."""

import threading

import numpy as np
import pytest
import requests
from click.testing import CliRunner

from service.__main__ import main
from tests.conftest import TRIPLE
from tests.serving import running_service, wait_until
from tests.stores.redis_servers import redis_server

CLIENTS, BEFORE, AFTER = 6, 40, 15


@pytest.fixture(scope="module")
def series():
    return np.random.default_rng(11).normal([10, 5, 1010], [9, 7, 8], (CLIENTS, BEFORE + AFTER, 3)).round(3)


def go_on(url, session, series, first, last):
    """Each client's numbered steps first to last, interleaved: the answers as they came."""
    answers = []
    for step in range(first, last):
        for client in range(CLIENTS):
            body = {"observation": series[client, step].tolist(), "step": step + 1}
            answer = session.post(f"{url}/v1/models/{TRIPLE}/clients/c-{client}/predict", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
            answers.append((answer.json(), answer.headers.get("Idempotent-Replay")))
    return answers


def command(*arguments):
    done = CliRunner().invoke(main, ["state", *map(str, arguments)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def moved(tiny_repository, tmp_path_factory, series):
    """The original's last answer of each client and those that followed, and where else its records are by now."""
    root = tmp_path_factory.mktemp("moved")
    original = f"sqlite:///{root}/original"
    with redis_server(root / "redis") as server:
        with running_service(tiny_repository, original, workers=2) as running, requests.Session() as session:
            told = go_on(running.url, session, series, 0, BEFORE)
            command("backup", "--from", original, "--to", root / "backup")
            command("migrate", "--from", original, "--to", server.url)
            command("export", "--from", original, "--to", root / "records.jsonl")
            command("import", "--from", root / "records.jsonl", "--to", f"sqlite:///{root}/imported")
            exports = {
                f"c-{client}": session.get(
                    f"{running.url}/v1/models/{TRIPLE}/clients/c-{client}/state", timeout=30
                ).text
                for client in range(CLIENTS)
            }
            following = go_on(running.url, session, series, BEFORE, BEFORE + AFTER)
        places = {
            "a backup": f"sqlite:///{root}/backup",
            "a migration to Redis": server.url,
            "a file": f"sqlite:///{root}/imported",
            "HTTP": f"sqlite:///{root}/empty",
        }
        yield told[-CLIENTS:], following, places, exports


@pytest.mark.parametrize("how", ["a backup", "a migration to Redis", "a file", "HTTP"])
def test_a_client_goes_on_the_same_wherever_its_state_was_moved(moved, tiny_repository, series, how):
    told, following, places, exports = moved
    with (
        running_service(tiny_repository, places[how], workers=2, module="tests.patience") as running,
        requests.Session() as session,
    ):
        if how == "HTTP":
            for client, document in exports.items():
                url = f"{running.url}/v1/models/{TRIPLE}/clients/{client}/state"
                assert session.put(url, data=document, timeout=30).status_code == 201
        again = go_on(running.url, session, series, BEFORE - 1, BEFORE)
        assert again == [(answer, "true") for answer, _ in told], "the last request again is a retry here as well"
        assert go_on(running.url, session, series, BEFORE, BEFORE + AFTER) == following


def test_a_service_is_moved_while_it_serves_and_no_acknowledged_step_stays_behind(tiny_repository, tmp_path, series):
    """Migrate under load, stop, migrate again, start on the new store; a backup taken under the same load is whole."""
    old, backup = f"sqlite:///{tmp_path}/old", f"sqlite:///{tmp_path}/backup"
    acknowledged, stop = [0] * CLIENTS, threading.Event()

    def keep_sending(url, client):
        with requests.Session() as session:
            while not stop.is_set():
                step = acknowledged[client] + 1
                body = {"observation": series[client, step % len(series[client])].tolist(), "step": step}
                answer = session.post(f"{url}/v1/models/{TRIPLE}/clients/c-{client}/predict", json=body, timeout=30)
                assert answer.status_code == 200, answer.text
                acknowledged[client] = step

    with redis_server(tmp_path / "redis") as server:
        with running_service(tiny_repository, old, workers=2) as running:
            threads = [threading.Thread(target=keep_sending, args=(running.url, client)) for client in range(CLIENTS)]
            for thread in threads:
                thread.start()
            try:
                wait_until(lambda: min(acknowledged) > 5, 120, "steps of every client")
                command("migrate", "--from", old, "--to", server.url)
                before = list(acknowledged)
                command("backup", "--from", old, "--to", tmp_path / "backup")
                after = list(acknowledged)
                command("migrate", "--from", old, "--to", server.url)
                wait_until(lambda: min(acknowledged) > max(after), 120, "steps after the backup")
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
        command("migrate", "--from", old, "--to", server.url)
        steps = {}
        for place in (server.url, backup):
            with running_service(tiny_repository, place, workers=1, module="tests.patience") as running:
                clients = f"{running.url}/v1/models/{TRIPLE}/clients"
                steps[place] = [requests.get(f"{clients}/c-{c}", timeout=30).json()["step"] for c in range(CLIENTS)]
        assert steps[server.url] == acknowledged
        assert all(low <= step <= high + 1 for low, step, high in zip(before, steps[backup], after, strict=True))
