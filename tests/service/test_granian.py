"""The real service under granian instead of gunicorn: the same answers, and what a master and its workers owe."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from service.settings import METRICS_DIR
from tests.conftest import ROOT, SINGLE, TRIPLE
from tests.serving import free_port, read_until_closed, running_service, wait_until

BOUND_S = 120.0
TIME = re.compile(r'"\d{4}-\d\d-\d\dT[^"]*"')
PREDICT = f"/v1/models/{SINGLE}/clients/c/predict"


@pytest.fixture(scope="module")
def service(tiny_repository, tmp_path_factory):
    """One service for the tests that leave it as it is."""
    state = tmp_path_factory.mktemp("state")
    with running_service(tiny_repository, f"sqlite:///{state}", server="granian", access_log=True) as running:
        yield running


def predict(url, client, observation, **fields):
    answer = requests.post(
        f"{url}/v1/models/{SINGLE}/clients/{client}/predict", json={"observation": observation, **fields}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def metrics_folder(running):
    """Where the master lets its workers put their metrics."""
    (temporary,) = re.findall(r"\0TMPDIR=([^\0]*)", "\0" + Path(f"/proc/{running.pid}/environ").read_text())
    (folder,) = Path(temporary).glob("recurve-metrics-*")
    return folder


def calls():
    """One of each kind: method, path, what is sent, headers."""
    observations = [{"observation": 20.0 + i} for i in range(3)]
    items = [{"client": f"m{i % 3}", "observation": float(i)} for i in range(6)]
    lines = b"".join(json.dumps(item).encode() + b"\n" for item in items)
    base = f"/v1/models/{SINGLE}/clients"
    return [
        *(("POST", PREDICT, json.dumps(each).encode(), {}) for each in observations),
        ("POST", PREDICT, b'{"observation": 22.0, "step": 3}', {}),
        ("POST", PREDICT, b'{"observation": 22.0, "step": 9}', {}),
        ("POST", PREDICT, b'{"observation": 1.0}', {"Idempotency-Key": "k"}),
        ("POST", PREDICT, b'{"observation": 1.0}', {"Idempotency-Key": "k"}),
        ("POST", PREDICT, b'{"observation": [1.0, 2.0]}', {}),
        ("POST", PREDICT, b'{"observation"', {}),
        ("POST", PREDICT, b'{"observations": [' + b"1.0, " * 300_000 + b"1.0]}", {}),
        ("POST", f"{base}/%C3%A9%20t%C3%A9/predict", b'{"observation": 20.0}', {}),
        ("PUT", f"{base}/long/history", json.dumps({"observations": [float(i % 7) for i in range(3000)]}).encode(), {}),
        ("POST", f"{base}/long/forecast", b'{"horizon": 3}', {}),
        ("POST", f"/v1/models/{SINGLE}/predict", json.dumps({"items": items[:3]}).encode(), {}),
        ("POST", f"/v1/models/{SINGLE}/predict", lines, {"Content-Type": "application/x-ndjson"}),
        ("GET", f"{base}/c", None, {}),
        ("GET", base, None, {}),
        ("DELETE", f"{base}/c", None, {}),
        ("GET", f"{base}/c", None, {}),
        ("GET", "/v1/nothing", None, {}),
        ("GET", "/livez", None, {}),
    ]


def exchanged(url):
    """What is answered to each of `calls`, as far as it does not depend on when it is asked."""
    answers = []
    with requests.Session() as session:
        for number, (method, path, body, headers) in enumerate(calls()):
            headers = {"X-Request-Id": f"call-{number}", **headers}
            answer = session.request(method, f"{url}{path}", data=body, headers=headers, timeout=60)
            kept = {name: answer.headers.get(name) for name in ("Content-Type", "X-Request-Id", "Idempotent-Replay")}
            text = TIME.sub('"when"', answer.text)
            answers.append((method, path, answer.status_code, kept, text))
            if answer.status_code == 413:  # a server may end the connection whose body it did not read, and not say so
                session.close()
    return answers


def test_every_kind_of_call_is_answered_as_under_gunicorn(tiny_repository, tmp_path):
    answers = {}
    for server in ("gunicorn", "granian"):
        url = f"sqlite:///{tmp_path / server}"
        with running_service(tiny_repository, url, workers=1, server=server) as running:
            assert requests.get(f"{running.url}/livez", timeout=30).headers["Server"] == server
            answers[server] = exchanged(running.url)
    assert len(answers["granian"]) == len(calls())
    for ours, theirs in zip(answers["granian"], answers["gunicorn"], strict=True):
        assert ours == theirs


def test_it_says_where_it_listens_and_logs_in_json_with_the_ids_of_requests(service):
    assert f"http://127.0.0.1:{service.port}" in service.stdout()
    assert f"Serves {SINGLE} 1, {TRIPLE} 1" in service.stdout()
    requests.get(f"{service.url}/v1/models", headers={"X-Request-Id": "trace-78"}, timeout=30)
    wait_until(lambda: "trace-78" in service.stderr(), BOUND_S, "the line")
    ours = [line for line in service.stderr().splitlines() if not line.startswith("INFO: Created TensorFlow Lite")]
    assert {"time", "level", "logger", "pid", "message"} <= set.intersection(*(set(json.loads(line)) for line in ours))
    (line,) = [json.loads(line) for line in ours if "trace-78" in line]
    assert line["pid"] in service.workers()


def ended(tmp_path, *options):
    """`python -m service` with `options`, which is expected to end by itself; its temporary files are in `tmp_path`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RECURVE_", METRICS_DIR))}
    command = [sys.executable, "-m", "service", *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=BOUND_S,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_a_port_in_use_is_refused_in_words_and_not_shared(service, tmp_path, server):
    done = ended(tmp_path, "--server", server, "--port", str(service.port))
    assert done.returncode == 1
    assert f"recurve: can't listen on 127.0.0.1:{service.port}: Address already in use" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_listens_at_a_name(tiny_repository, tmp_path):
    state = f"sqlite:///{tmp_path / 'state'}"
    with running_service(tiny_repository, state, workers=1, server="granian", host="localhost") as service:
        assert predict(service.url, "c", 20.0)["step"] == 1


def test_after_kill_9_of_everything_the_next_answer_continues(tiny_repository, tmp_path):
    url, values = f"sqlite:///{tmp_path / 'state'}", [20.0 + i for i in range(12)]
    with running_service(tiny_repository, url, server="granian") as first:
        before = [predict(first.url, "c", value) for value in values[:6]]
        expected = [predict(first.url, "whole", value) for value in values]
        first.kill_group()
    with running_service(tiny_repository, url, server="granian") as second:
        assert predict(second.url, "c", values[5], step=6)["prediction"] == before[-1]["prediction"]
        after = [predict(second.url, "c", value, step=7 + i) for i, value in enumerate(values[6:])]
    assert [answer["prediction"] for answer in before + after] == [answer["prediction"] for answer in expected]
    assert {answer["state"]["status"] for answer in after} == {"carried"}


def test_sigterm_lets_a_request_under_way_end_and_closes_all(tiny_repository, tmp_path):
    rest = b'{"observation": 20.0}'
    state = f"sqlite:///{tmp_path / 'state'}"
    with running_service(tiny_repository, state, workers=1, server="granian") as service, requests.Session() as idle:
        assert idle.get(f"{service.url}/livez", timeout=30).status_code == 200  # and it stays open
        folder = metrics_folder(service)
        assert list(folder.glob("*.db"))
        assert list((tmp_path / "state").glob("*-wal"))
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(rest)}\r\n\r\n"
            connection.sendall(head.encode() + rest[:5])
            wait_until(lambda: is_read_up(connection), BOUND_S, "the worker has what was sent")
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Stopping worker-1" in service.stderr(), BOUND_S, "the signal")
            connection.sendall(rest[5:])
            connection.settimeout(BOUND_S)
            answer = read_until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"step":1' in answer
        assert service.process.wait(BOUND_S) == 0
        assert not folder.exists()
        assert not list((tmp_path / "state").glob("*-wal")), "the store was closed"


def test_a_worker_asked_to_end_while_it_starts_does(tiny_repository, tmp_path, begin):
    options = ["--server", "granian", "--workers", "4", "--port", str(free_port()), "--graceful-timeout-s", "600"]
    options += ["--models-dir", str(tiny_repository), "--state-url", f"sqlite:///{tmp_path / 'state'}"]
    with (tmp_path / "log").open("wb") as log:
        process = begin([sys.executable, "-m", "service", *options], stdout=log, stderr=log, start_new_session=True)
    wait_until(lambda: b"Spawning worker-4" in (tmp_path / "log").read_bytes(), BOUND_S, "the last worker")
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND_S) == 0


def is_read_up(connection):
    """Whether the other side, on this machine, has read all that was sent to it."""
    port, peer = connection.getsockname()[1], connection.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state, queues = line.split()[1:5]
        if int(local.split(":")[1], 16) == peer and int(remote.split(":")[1], 16) == port and state == "01":
            return int(queues.split(":")[1], 16) == 0
    return False


def test_a_killed_worker_is_replaced_its_gauges_go_and_its_counts_stay(tiny_repository, tmp_path):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}", server="granian") as service:
        folder, old = metrics_folder(service), service.workers()
        predict(service.url, "c", 20.0)
        wait_until(lambda: (folder / f"gauge_livesum_{old[0]}.db").exists(), BOUND_S, "its gauges")
        os.kill(old[0], signal.SIGKILL)
        wait_until(lambda: len(set(service.workers()) - {old[0]}) == 2, BOUND_S, "a new worker")
        wait_until(lambda: not (folder / f"gauge_livesum_{old[0]}.db").exists(), BOUND_S, "its gauges gone")
        assert (folder / f"counter_{old[0]}.db").exists()
        wait_until(lambda: service.status("/readyz") == 200, BOUND_S, "ready")
        assert [predict(service.url, "c", 20.0)["step"] for _ in range(10)] == list(range(2, 12))


def test_workers_end_when_their_master_is_killed(tiny_repository, tmp_path):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}", server="granian") as service:
        workers = service.workers()
        os.kill(service.pid, signal.SIGKILL)
        service.process.wait(BOUND_S)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), BOUND_S, "the workers' end")


def test_a_missing_granian_is_named_with_what_to_install():
    without = "import sys; sys.modules['granian'] = None; from service.__main__ import main; main()"
    command = [sys.executable, "-c", without, "--server", "granian"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 2
    assert "granian is not installed" in done.stderr
    (file,) = re.findall(r"requirements/\S+\.txt", done.stderr)
    assert re.search(r"^granian==", (ROOT / file).read_text(), re.MULTILINE)


def test_a_store_that_does_not_open_is_said_once_and_leaves_no_metrics(tmp_path):
    (tmp_path / "file").write_text("no folder")
    options = ["--server", "granian", "--state-url", f"sqlite:///{tmp_path / 'file'}", "--port", str(free_port())]
    done = ended(tmp_path, *options)
    assert done.returncode == 1
    assert done.stderr.count("recurve: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
