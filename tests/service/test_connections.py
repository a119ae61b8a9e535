"""What a connection may do to the real service: stall, drip, pipeline, send what is refused or no request at all."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import SINGLE
from tests.serving import read_until_closed, running_service, wait_until

BOUND_S = 120.0


@pytest.fixture(scope="module")
def service(tiny_repository, tmp_path_factory):
    """One service for the tests that leave it as it is."""
    state = tmp_path_factory.mktemp("state")
    with running_service(tiny_repository, f"sqlite:///{state}") as running:
        yield running


def predict(url, client, observation):
    answer = requests.post(
        f"{url}/v1/models/{SINGLE}/clients/{client}/predict", json={"observation": observation}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@contextmanager
def connected(service):
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.settimeout(BOUND_S)
        yield connection


def post(client, body, *headers, model=SINGLE, length=None, path="predict", verb="POST"):
    """A request as bytes; `length` is what it claims, if not the truth."""
    fields = [f"Content-Length: {len(body) if length is None else length}", *headers]
    line = f"{verb} /v1/models/{model}/clients/{client}/{path} HTTP/1.1"
    return "\r\n".join([line, "Host: x", *fields, "", ""]).encode("latin1") + body


def until(connection, text, count=1):
    """What arrives until `text` did, `count` times, and the JSON it is in has ended."""
    answer = b""
    while answer.count(text) < count or not answer.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def refusal(answer):
    """Status and decoded body of the one problem in `answer`, which must be one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert f"X-Request-Id: {problem['request_id']}".encode() in head
    assert f" {problem['status']} ".encode() in head.partition(b"\r\n")[0]
    return problem


@pytest.fixture(scope="module")
def impatient(tiny_repository):
    """One worker with two threads that waits a second for a request."""
    with running_service(tiny_repository, "memory://", workers=1, threads=2, read_timeout_s=1) as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"G", 408, None),
        (b"POST /v1/models/x/clients/c/predict HTTP/1.1\r\nHost: x\r\nContent-", 408, None),
        (post("slow", b'{"obs', length=100), 408, "stalled"),
        (post("slow", b'{"obs', length=10_000_000), 413, "body_too_large"),
        (post("slow", b'{"obs', length=10_000_000, model="none"), 404, "model_not_found"),
    ],
    ids=["line", "head", "body", "too large", "unread"],
)
def test_who_stalls_is_refused_and_gives_the_thread_back(impatient, sent, status, code):
    with ExitStack() as stack:
        stalled = [stack.enter_context(connected(impatient)) for _ in range(2)]
        for connection in stalled:
            connection.sendall(sent)
        assert impatient.status("/livez") == 200
        for connection in stalled:
            problem = refusal(read_until_closed(connection))
            assert (problem["status"], problem.get("code")) == (status, code)
        assert impatient.status("/livez") == 200
    assert impatient.status(f"/v1/models/{SINGLE}/clients/slow") == 404


def test_a_byte_now_and_then_does_not_hold_a_thread(impatient):
    with connected(impatient) as connection:
        connection.sendall(post("drip", b"", length=1_000_000))

        def refused():
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(b" ")
            return bool(select.select([connection], [], [], 0)[0])

        wait_until(refused, BOUND_S, "the refusal", every_s=0.1)  # a second for each byte would be a hundred thousand
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_connection_may_be_idle_for_longer_than_a_request_may_take(impatient):
    with connected(impatient) as connection:
        idle_until = time.monotonic() + 2.5
        connection.sendall(post("idle", b'{"observation": 1}'))
        until(connection, b'"step":1')
        wait_until(lambda: time.monotonic() > idle_until, BOUND_S, "idle")
        connection.sendall(post("idle", b'{"observation": 1}'))
        until(connection, b'"step":2')


def test_connections_that_say_nothing_hold_no_thread(impatient):
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(impatient)) for _ in range(6)]
        assert impatient.status("/livez") == 200
        assert select.select(silent, [], [], 0)[0] == [], "nor had one of them to end for it"
        silent[0].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        until(silent[0], b"true")


def test_at_sigterm_a_request_that_was_sent_is_answered_and_silent_connections_are_closed(tiny_repository):
    with ExitStack() as stack:
        service = stack.enter_context(running_service(tiny_repository, "memory://", workers=1))
        (worker,) = service.workers()
        idle, silent = (stack.enter_context(connected(service)) for _ in range(2))
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        until(idle, b"true")
        os.kill(worker, signal.SIGSTOP)  # all of this finds the main loop in one round
        wait_until(lambda: ") T " in Path(f"/proc/{worker}/stat").read_text(), BOUND_S, "the worker stopped")
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in service.stderr(), BOUND_S, "the signal")
        os.kill(worker, signal.SIGCONT)
        assert read_until_closed(idle).startswith(b"HTTP/1.1 200 ")
        with contextlib.suppress(ConnectionResetError):  # not accepted yet when the service stopped
            assert read_until_closed(silent) == b""
        assert service.process.wait(BOUND_S) == 0
        assert "Traceback" not in service.stderr()


def test_clients_that_do_not_close_hold_nobody_up(impatient):
    with ExitStack() as stack:
        for _ in range(60):  # two threads that lingered for each would take a minute for them
            connection = stack.enter_context(connected(impatient))
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_until_closed(connection).startswith(b"HTTP/1.1 200 ")
        assert impatient.status("/livez") == 200, "within half a minute"


def test_sigterm_does_not_wait_for_a_stalled_body(tiny_repository, tmp_path):
    patient = {"read_timeout_s": 600, "graceful_timeout_s": 600}  # much longer than `terminate` waits
    state = f"sqlite:///{tmp_path / 'state'}"
    with running_service(tiny_repository, state, **patient) as service, connected(service) as connection:
        connection.sendall(post("c", b"abc", length=100))
        predict(service.url, "other", 1.0)  # who comes later is let in later: a worker has the connection
        assert service.terminate() == 0


@pytest.mark.parametrize("count", [2, 5])
def test_pipelined_requests_are_all_answered_at_once(service, count):
    with connected(service) as connection:
        connection.sendall(post(f"pipe{count}", b'{"observation": 1}') * count)
        answers = until(connection, b'"step":', count)
    steps = [int(step) for step in re.findall(rb'"step":(\d+)', answers)]
    assert steps == list(range(1, count + 1))


def test_pipelined_requests_are_answered_while_others_wait_for_a_thread(impatient):
    with ThreadPoolExecutor(4) as pool:

        def pipelined(name):
            with connected(impatient) as connection:
                connection.sendall(post(name, b'{"observation": 1}') * 30)
                answers = until(connection, b'"step":', 30)
            return answers.count(b"HTTP/1.1 200")

        assert list(pool.map(pipelined, ["p0", "p1", "p2", "p3"])) == [30] * 4


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models/none/clients/c/predict", {}, 404),
        ("/v1/models/single/clients/%00/predict", {}, 422),
        ("/v1/models/single/clients/c/predict?x=1", {}, 422),
        ("/v1/models/single/clients/c/predict", {"Content-Encoding": "gzip"}, 415),
        ("/livez", {}, 405),
        ("/nowhere", {}, 404),
    ],
)
def test_a_refusal_reaches_who_sends_a_large_body_and_the_connection_lives_on(service, path, headers, status):
    with requests.Session() as session:
        answer = session.post(service.url + path, data=b"x" * 10_000_000, headers=headers, timeout=60)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
        assert "close" not in answer.headers.get("Connection", "")
        assert session.get(f"{service.url}/livez", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nLong: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET /v1/models/caf\u00e9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), 400),
    ],
    ids=["header", "line", "version", "long line", "long header", "two lengths", "raw bytes"],
)
def test_what_is_no_request_gets_a_problem_with_an_id_too(service, sent, status):
    with connected(service) as connection:
        connection.sendall(sent)
        assert refusal(read_until_closed(connection))["status"] == status


def test_a_request_that_is_none_has_not_the_id_of_the_one_before(service):
    with connected(service) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: first-one\r\n\r\n")
        assert b"first-one" in until(connection, b"true")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n")
        assert refusal(read_until_closed(connection))["request_id"] != "first-one"
    assert not [line for line in service.stderr().splitlines() if "first-one" in line and '"refused' in line]


@pytest.mark.parametrize("end", [b"zz\r\n{}", b"0\r\nBad Trailer: 1\r\n\r\n"], ids=["size", "trailer"])
def test_what_follows_a_broken_chunk_is_not_the_next_request(service, end):
    with connected(service) as connection:
        head = (
            f"POST /v1/models/{SINGLE}/clients/broken/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode() + end + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("part", [b"{},", b"[" * 150 + b"]" * 150 + b","], ids=["objects", "nests"])
def test_a_history_that_would_inflate_is_refused_for_little_more_than_its_bytes(service, part):
    def peak(pid):
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])

    body = b'{"observations":[' + part * (16_000_000 // len(part)) + b"{}]}"
    answer = requests.put(f"{service.url}/v1/models/{SINGLE}/clients/inflate/history", data=body, timeout=60)
    assert (answer.status_code, answer.json()["field"]) == (422, "observations")
    assert max(map(peak, service.workers())) < 250 * 1024
