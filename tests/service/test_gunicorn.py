"""The real service: gunicorn, two workers, sqlite, real bundles; killed, stopped, started again."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from models.repository import Repository
from service.settings import METRICS_DIR
from tests.conftest import ROOT, SINGLE, TRIPLE
from tests.serving import ServiceFailed, free_port, read_until_closed, running_service, wait_until

BOUND_S = 120.0


@pytest.fixture(scope="module")
def service(tiny_repository, tmp_path_factory):
    """One service for the tests that leave it as it is."""
    state = tmp_path_factory.mktemp("state")
    with running_service(tiny_repository, f"sqlite:///{state}", access_log=True) as running:
        yield running


def predict(url, client, observation, model=SINGLE, **fields):
    answer = requests.post(
        f"{url}/v1/models/{model}/clients/{client}/predict", json={"observation": observation, **fields}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def metric(text, name, **labels):
    """The value of one sample, None if there is no such sample."""
    for line in text.splitlines():
        match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")) == labels:
            return float(match[3])
    return None


def predicts(service, model):
    """How many predicts of version 1 the metrics count now, whichever worker is asked."""
    text = requests.get(f"{service.url}/metrics", timeout=30).text
    return metric(text, "recurve_predicts_total", model=model, version="1", status="200") or 0.0


def test_it_says_where_it_listens_and_what_it_serves(service):
    assert f"http://127.0.0.1:{service.port}" in service.stdout()
    assert f"Serves {SINGLE} 1, {TRIPLE} 1" in service.stdout()


def test_every_log_line_is_json(service):
    ours = [line for line in service.stderr().splitlines() if not line.startswith("INFO: Created TensorFlow Lite")]
    assert {"time", "level", "logger", "pid", "message"} <= set.intersection(*(set(json.loads(line)) for line in ours))


def test_any_worker_continues_any_client(service):
    answers = [predict(service.url, "wanderer", 20.0 + i) for i in range(40)]  # a new connection each
    assert [answer["step"] for answer in answers] == list(range(1, 41))
    wait_until(lambda: predicts(service, SINGLE) >= 40, BOUND_S, "40 counted predicts")


def test_interleaved_clients_answer_as_each_alone(service):
    values = [20.0, 21.5, 19.0, 22.0, 25.0]
    alone = [predict(service.url, "alone", value)["prediction"] for value in values]
    mixed = [(predict(service.url, "one", value), predict(service.url, "two", -value))[0] for value in values]
    assert [answer["prediction"] for answer in mixed] == alone


def test_one_client_from_many_threads_takes_every_step_once(service):
    with ThreadPoolExecutor(8) as pool:
        steps = list(pool.map(lambda i: predict(service.url, "crowd", float(i))["step"], range(64)))
    assert sorted(steps) == list(range(1, 65))


def test_metrics_are_those_of_all_workers_whoever_answers(service):
    def took_part():
        lines = [json.loads(line) for line in service.stderr().splitlines() if f"/{TRIPLE}/clients/counted" in line]
        return {line["pid"] for line in lines}

    assert predicts(service, TRIPLE) == 0
    sent = 0
    while sent < 20 or len(took_part()) < 2:
        assert sent < 1000
        predict(service.url, "counted", [20.0, 10.0, 1013.0], TRIPLE)  # a new connection each
        sent += 1
    assert took_part() == set(service.workers())
    wait_until(lambda: predicts(service, TRIPLE) == sent, BOUND_S, "every worker's counts")  # they settle in time
    assert {predicts(service, TRIPLE) for _ in range(20)} == {sent}


def test_no_metric_names_a_client(service):
    predict(service.url, "very-private-name", 20.0)
    assert "very-private-name" not in requests.get(f"{service.url}/metrics", timeout=30).text


def test_tensorflow_is_never_imported_where_a_bundle_has_its_tflite(service):
    for pid in [service.pid, *service.workers()]:
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "tensorflow" not in maps.replace("ai_edge_litert", "")
        assert "/keras" not in maps
    workers = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in service.workers())
    assert "ai_edge_litert" in workers  # the look at the maps does find a runtime


def test_a_worker_keeps_within_150_megabytes(service):
    for _ in range(20):
        predict(service.url, "weight", 20.0)
    for pid in service.workers():
        resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert int(resident[1]) < 150 * 1024


def test_a_body_of_ten_megabytes_is_answered_and_the_connection_lives_on(service):
    with requests.Session() as session:
        url = f"{service.url}/v1/models/{SINGLE}/clients/big/predict"
        body = b'{"observations": [' + b"1.0, " * 2_500_000 + b"1.0]}"
        for sent in (body, iter([body[:5_000_000], body[5_000_000:]])):  # with its length, and chunked
            answer = session.post(url, data=sent, timeout=60)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert session.post(url, data=b'{"observation": 1}', timeout=30).json()["step"] == 1


def test_a_client_that_goes_away_in_the_middle_of_its_body_moves_nothing(service):
    predict(service.url, "gone", 20.0)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        head = f"POST /v1/models/{SINGLE}/clients/gone/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"observation": 1')
    assert predict(service.url, "gone", 20.0, step=2)["step"] == 2


def test_after_kill_9_of_everything_the_next_answer_continues(tiny_repository, tmp_path):
    url = f"sqlite:///{tmp_path / 'state'}"
    values = [20.0 + i for i in range(20)]
    with running_service(tiny_repository, url) as first:
        before = [predict(first.url, "c", value) for value in values[:10]]
        expected = [predict(first.url, "whole", value) for value in values]
        first.kill_group()
    with running_service(tiny_repository, url) as second:
        replay = predict(second.url, "c", values[9], step=10)
        assert replay["prediction"] == before[-1]["prediction"]
        after = [predict(second.url, "c", value, step=11 + i) for i, value in enumerate(values[10:])]
    assert [answer["prediction"] for answer in before + after] == [answer["prediction"] for answer in expected]
    assert {answer["state"]["status"] for answer in after} == {"carried"}


def test_acknowledged_steps_survive_kill_9_under_load(tiny_repository, tmp_path):
    url = f"sqlite:///{tmp_path / 'state'}"
    acknowledged = {}
    with running_service(tiny_repository, url) as first:
        stop = threading.Event()

        def client(name):
            step = 0
            while not stop.is_set():
                try:
                    step = predict(first.url, name, float(step), step=step + 1)["step"]
                except requests.RequestException:
                    return
                acknowledged[name] = step

        threads = [threading.Thread(target=client, args=(f"c{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(acknowledged.values()) > 200, BOUND_S, "200 acknowledged steps")
        first.kill_group()
        stop.set()
        for thread in threads:
            thread.join()
    with running_service(tiny_repository, url) as second:
        for name, step in acknowledged.items():
            kept = requests.get(f"{second.url}/v1/models/{SINGLE}/clients/{name}", timeout=30).json()["step"]
            assert kept in (step, step + 1)  # the last one may be absorbed and not yet acknowledged


def test_a_killed_worker_is_replaced_and_nobody_loses_a_step(tiny_repository, tmp_path):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}") as service:
        predict(service.url, "c", 20.0)
        old = service.workers()
        os.kill(old[0], signal.SIGKILL)
        wait_until(lambda: len(set(service.workers()) - {old[0]}) == 2, BOUND_S, "a new worker")
        wait_until(lambda: service.status("/readyz") == 200, BOUND_S, "ready")
        for i in range(10):
            assert predict(service.url, "c", 20.0)["step"] == 2 + i


def test_sigterm_ends_it_at_once_though_idle_connections_stay_open(tiny_repository, tmp_path):
    state, patient = f"sqlite:///{tmp_path / 'state'}", {"graceful_timeout_s": 600}  # `terminate` waits 40 s
    with running_service(tiny_repository, state, **patient) as service, requests.Session() as idle:
        assert idle.get(f"{service.url}/livez", timeout=30).status_code == 200
        assert service.terminate() == 0


def test_sigterm_lets_a_request_under_way_end(tiny_repository, tmp_path):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}") as service:
        rest = b'{"observation": 20.0}'
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            head = f"POST /v1/models/{SINGLE}/clients/late/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(rest)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + rest[:5])
            predict(service.url, "other", 1.0)  # a worker has had time to take the connection up
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Handling signal: term" in service.stderr(), BOUND_S, "the signal")
            connection.sendall(rest[5:])
            connection.settimeout(BOUND_S)
            answer = read_until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"step":1' in answer
        assert service.process.wait(BOUND_S) == 0


def test_sighup_replaces_the_workers_and_keeps_clients_and_counts(tiny_repository, tmp_path):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}") as service:
        predict(service.url, "c", 20.0)
        old = set(service.workers())
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(set(service.workers()) - old) == 2 == len(service.workers()), BOUND_S, "new workers")
        wait_until(lambda: service.status("/readyz") == 200, BOUND_S, "ready")
        assert predict(service.url, "c", 20.0)["step"] == 2
        wait_until(lambda: predicts(service, SINGLE) == 2, BOUND_S, "both counts")


def test_a_daemon_leaves_no_metrics_behind(tiny_repository, tmp_path):
    """Its master is not the process that named the folder."""
    (tmp_path / "temporary").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RECURVE_", METRICS_DIR))}
    environment |= {
        "TMPDIR": str(tmp_path / "temporary"), "GUNICORN_CMD_ARGS": f"--daemon --pid {tmp_path / 'pid'}",
    }  # fmt: skip
    port, state = str(free_port()), f"sqlite:///{tmp_path / 'state'}"
    command = [sys.executable, "-m", "service", "--port", port, "--models-dir", str(tiny_repository)]
    subprocess.run([*command, "--state-url", state], cwd=ROOT, env=environment, timeout=BOUND_S, check=True)
    folders = (tmp_path / "temporary").glob
    wait_until((tmp_path / "pid").exists, BOUND_S, "the daemon")
    pid = int((tmp_path / "pid").read_text())
    try:
        wait_until(lambda: len([*folders("*/counter_*.db")]) == 2, BOUND_S, "a worker's metrics")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), BOUND_S, "the end")
    except BaseException:
        os.killpg(pid, signal.SIGKILL)
        raise
    assert list(folders("*")) == []


def test_a_busy_connection_does_not_keep_a_thread_from_others(tiny_repository):
    with running_service(tiny_repository, "memory://", workers=1, threads=1) as service, requests.Session() as busy:
        stop = threading.Event()

        def hammer():
            while not stop.is_set():
                assert busy.get(f"{service.url}/livez", timeout=30).status_code == 200

        with ThreadPoolExecutor(1) as pool:
            hammering = pool.submit(hammer)
            try:
                with requests.Session() as other:
                    for _ in range(20):
                        assert other.get(f"{service.url}/livez", timeout=30).status_code == 200
            finally:
                stop.set()
            hammering.result()


def test_what_is_no_http_chunk_is_refused_and_moves_nothing(service):
    predict(service.url, "chunks", 20.0)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        head = (
            f"POST /v1/models/{SINGLE}/clients/chunks/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode() + b"zz\r\n{}")
        connection.settimeout(BOUND_S)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    assert predict(service.url, "chunks", 20.0, step=2)["step"] == 2


def test_a_taken_port_is_said_in_one_sentence(tiny_repository, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceFailed, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
            _start(tiny_repository, tmp_path, port=port)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"state_url": "memory://"}, "lives inside one process"),
        ({"workers": "two"}, "RECURVE_WORKERS"),
        ({"engine": "magic"}, "RECURVE_ENGINE"),
        ({"state_url": "postgres://x"}, "recurve: no store is called 'postgres://x'"),
        ({"state_url": "sqlite:////dev/null/state"}, "recurve: /dev/null/state can't hold records"),
    ],
)
def test_a_setting_that_cannot_be_used_is_said_at_the_start(tiny_repository, tmp_path, settings, said):
    with pytest.raises(ServiceFailed, match=said):
        _start(tiny_repository, tmp_path, **settings)


def _start(repository, tmp_path, **settings):
    url = settings.pop("state_url", f"sqlite:///{tmp_path / 'state'}")
    with running_service(repository, url, **settings):
        pass


def test_memory_serves_with_one_worker(tiny_repository):
    with running_service(tiny_repository, "memory://", workers=1) as service:
        assert [predict(service.url, "c", 20.0)["step"] for _ in range(3)] == [1, 2, 3]


def test_an_empty_repository_is_polled_until_a_bundle_lands(tiny_repository, tmp_path):
    models = tmp_path / "models"
    with running_service(models, f"sqlite:///{tmp_path / 'state'}", wait_ready=False, poll_s=0.1) as service:
        answer = requests.get(f"{service.url}/readyz", timeout=30)
        assert (answer.status_code, answer.json()["models"]) == (503, {})
        assert requests.post(f"{service.url}/v1/models/{SINGLE}/clients/c/predict", timeout=30).status_code == 503
        shutil.copytree(tiny_repository / SINGLE, tmp_path / "staged")
        models.mkdir(exist_ok=True)
        (tmp_path / "staged").rename(models / SINGLE)
        wait_until(lambda: all(service.status("/readyz") == 200 for _ in range(10)), BOUND_S, "every worker ready")
        assert predict(service.url, "c", 20.0)["step"] == 1


@pytest.fixture(scope="module")
def successor(tiny_repository, tmp_path_factory):
    """A bundle for the next version of SINGLE: the same contract, other weights."""
    from tests.training.bundles import make_tiny_bundle

    folder = tmp_path_factory.mktemp("successor") / "bundle"
    folder.mkdir()
    return folder, make_tiny_bundle(folder, name=SINGLE, n_features=1, interval_s=None, seed=12)


def publish(repository, bundle):
    """Publishes a copy of `bundle`; its version."""
    folder, manifest = bundle
    with repository.stage(SINGLE) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        return repository.publish(staging, manifest)


def test_a_new_version_is_taken_up_while_serving_and_no_client_goes_back(tiny_repository, successor, tmp_path):
    shutil.copytree(tiny_repository, tmp_path / "models")
    repository = Repository(tmp_path / "models")
    with running_service(repository.root, f"sqlite:///{tmp_path / 'state'}") as service:
        clients = [f"c{i}" for i in range(6)]
        seen = {client: [predict(service.url, client, 20.0)] for client in clients}
        assert publish(repository, successor) == 2

        def all_answers_are_of_version_2():
            answers = [predict(service.url, client, 20.0 + len(seen[client])) for client in clients]
            for client, answer in zip(clients, answers, strict=True):
                seen[client].append(answer)
            return {answer["version"] for answer in answers} == {2}

        wait_until(all_answers_are_of_version_2, BOUND_S, "version 2 everywhere")
        os.kill(service.workers()[0], signal.SIGKILL)  # its successor loads anew, and must serve the same
        for _ in range(10):
            try:
                all_answers_are_of_version_2()
            except requests.ConnectionError:  # it was the killed one's
                continue
    for answers in seen.values():
        versions = [answer["version"] for answer in answers]
        assert versions == sorted(versions)
        assert versions[-1] == 2
        rebuilt = [answer["state"]["reason"] for answer in answers if answer["state"]["status"] == "rebuilt"]
        assert rebuilt == ["model_updated"]


def test_a_worker_that_looks_rarely_follows_clients_that_are_ahead_of_it(tiny_repository, successor, tmp_path):
    shutil.copytree(tiny_repository, tmp_path / "models")
    repository = Repository(tmp_path / "models")
    with running_service(repository.root, f"sqlite:///{tmp_path / 'state'}", poll_s=3600) as service:
        for _ in range(4):
            assert predict(service.url, "c", 20.0)["version"] == 1
        publish(repository, successor)
        old = service.workers()
        os.kill(old[0], signal.SIGKILL)
        wait_until(lambda: len(set(service.workers()) - {old[0]}) == 2, BOUND_S, "a new worker")
        answers = []

        def updated():
            answers.append(predict(service.url, "c", 20.0))
            return answers[-1]["version"] == 2

        wait_until(updated, BOUND_S, "the new worker's answer")
        after = [predict(service.url, "c", 20.0) for _ in range(40)]  # a new connection each: both workers answer
        assert {answer["version"] for answer in after} == {2}
        assert {answer["state"]["status"] for answer in after} == {"carried"}
        assert answers[-1]["state"]["reason"] == "model_updated"


def test_a_damaged_bundle_is_named_and_the_others_are_served(tiny_repository, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(tiny_repository, models)
    with (models / TRIPLE / "1" / "assets.extra" / "step.tflite").open("r+b") as file:
        file.write(b"damage")
    with running_service(models, f"sqlite:///{tmp_path / 'state'}") as service:
        ready = requests.get(f"{service.url}/readyz", timeout=30).json()
        assert list(ready["models"]) == [SINGLE]
        assert (ready["problems"][0]["model"], ready["problems"][0]["version"]) == (TRIPLE, 1)
        assert "step.tflite" in ready["problems"][0]["detail"]
        assert "step.tflite" in service.stderr()
        assert requests.get(f"{service.url}/v1/models/{TRIPLE}", timeout=30).status_code == 404


def test_the_access_log_has_the_request_id_that_was_sent(service):
    requests.get(f"{service.url}/v1/models", headers={"X-Request-Id": "trace-77"}, timeout=30)
    wait_until(lambda: "trace-77" in service.stderr(), BOUND_S, "the line")
    (line,) = [json.loads(line) for line in service.stderr().splitlines() if "trace-77" in line]
    assert (line["path"], line["status"], line["request_id"]) == ("/v1/models", 200, "trace-77")
    assert line["pid"] in service.workers()
