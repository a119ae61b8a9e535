"""A worker reads and answers in one event loop: what takes long, or does not read, holds nobody else up."""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import requests

from tests.conftest import SINGLE
from tests.service.test_connections import connected, post, until
from tests.serving import read_until_closed, running_service, wait_until

BOUND_S = 120.0


@pytest.fixture(scope="module")
def lone(tiny_repository, tmp_path_factory):
    """One worker, so that whoever is asked shares it with everybody."""
    with running_service(
        tiny_repository, f"sqlite:///{tmp_path_factory.mktemp('state')}", workers=1, read_timeout_s=2, keepalive_s=2
    ) as running:
        yield running


def test_short_requests_are_answered_while_a_long_history_is_absorbed(lone):
    history = {"observations": np.sin(np.arange(60_000)).round(3).tolist()}
    url = f"{lone.url}/v1/models/{SINGLE}/clients"
    with ThreadPoolExecutor(1) as pool, requests.Session() as session:
        session.post(f"{url}/quick/predict", json={"observation": 1.0}, timeout=BOUND_S)
        long = pool.submit(requests.put, f"{url}/long/history", json=history, timeout=BOUND_S)
        answered = 0
        while not long.done():
            answer = session.post(f"{url}/quick/predict", json={"observation": 1.0}, timeout=BOUND_S)
            assert answer.status_code == 200
            answered += 1
    assert long.result().json()["step"] == 60_000
    assert answered > 20, "each, on average, within a twentieth of what the long one took"


def test_a_request_of_the_client_that_is_at_work_waits_its_turn_and_others_do_not_wait_for_it(lone):
    history = {"observations": [1.0] * 40_000}
    url = f"{lone.url}/v1/models/{SINGLE}/clients"
    with ThreadPoolExecutor(2) as pool, requests.Session() as session:
        session.get(f"{lone.url}/livez", timeout=BOUND_S)
        long = pool.submit(requests.put, f"{url}/same/history", json=history, timeout=60)
        behind = []
        while not long.done():
            behind.append(pool.submit(requests.post, f"{url}/same/predict", json={"observation": 1.0}, timeout=60))
            assert session.get(f"{lone.url}/livez", timeout=BOUND_S).status_code == 200
            with contextlib.suppress(TimeoutError):
                behind[-1].result(timeout=0.2)
        assert all(one.result().status_code in (200, 503) for one in behind)


def test_pipelined_requests_long_and_short_are_answered_in_order(lone):
    many = json.dumps({"observations": [1.0] * 500}).encode()
    with connected(lone) as connection:
        connection.sendall(
            post("mixed", many) + post("mixed", b'{"observation": 1}') + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = until(connection, b'"live":true')
    assert answer.index(b'"step":500') < answer.index(b'"step":501') < answer.index(b'"live":true')


def test_who_does_not_read_its_answers_is_cut_off_and_holds_nobody_up(lone):
    with ExitStack() as stack:
        connection = stack.enter_context(connected(lone))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1.0)
        asked = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 100
        cut = threading.Event()

        def pour():
            while not cut.is_set():
                try:
                    connection.sendall(asked)
                except TimeoutError:
                    continue
                except OSError:
                    cut.set()

        pouring = threading.Thread(target=pour)
        pouring.start()
        try:
            for _ in range(20):
                assert lone.status("/livez") == 200
            wait_until(cut.is_set, BOUND_S, "the end of the connection")
        finally:
            cut.set()
            pouring.join()


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", [b"HTTP/1.1 200 ", b"Connection: close"]),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [b"HTTP/1.1 200 ", b"Connection: close"]),
        (
            b"GET http://x/livez?a=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            [b"HTTP/1.1 200 ", b'"live":true'],
        ),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", [b"HTTP/1.1 200 "]),
        (b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", [b"HTTP/1.1 400 "]),
        (post("x", b"", "Transfer-Encoding: gzip, chunked").replace(b"Content-Length: 0\r\n", b""), [b"HTTP/1.1 501 "]),
        (post("x", b"{}", "Expect: a miracle"), [b"HTTP/1.1 417 "]),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", [b"HTTP/1.1 431 "]),
    ],
    ids=["1.0", "close", "absolute", "upgrade", "2.0", "coding", "expectation", "many headers"],
)
def test_what_else_http_can_ask_for_is_answered_and_the_connection_ends(lone, sent, answered):
    with connected(lone) as connection:
        connection.sendall(sent)
        answer = read_until_closed(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    for part in answered:
        assert part in answer


def test_http_1_0_may_keep_its_connection(lone):
    with connected(lone) as connection:
        for _ in range(2):
            connection.sendall(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"Connection: keep-alive" in until(connection, b"true")


def test_a_body_that_waits_for_leave_gets_it(lone):
    body = b'{"observation": 1}'
    with connected(lone) as connection:
        connection.sendall(post("expects", b"", "Expect: 100-continue", length=len(body)))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b'"step":1' in until(connection, b'"step":1')


def test_a_body_that_is_too_large_gets_no_leave_but_its_answer(lone):
    with connected(lone) as connection:
        connection.sendall(post("expects", b"", "Expect: 100-continue", length=10_000_000))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_an_answer_to_head_has_no_body(lone):
    with connected(lone) as connection:
        connection.sendall(b"HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = read_until_closed(connection).partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200 "), body) == (True, b"")
    assert b"Content-Length: 13" in head


def test_a_chunked_body_is_read_and_its_trailers_count_for_nothing(lone):
    with connected(lone) as connection:
        head = post("chunked", b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        connection.sendall(head + b'8\r\n{"observ\r\na\r\nation": 1}\r\n0\r\nIdempotency-Key: bad key\r\n\r\n')
        assert b'"step":1' in until(connection, b'"step":1')


def test_who_has_said_all_and_shut_its_side_is_answered(lone):
    with connected(lone) as connection:
        connection.sendall(post("shut", json.dumps({"observations": [1.0] * 500}).encode()))
        connection.shutdown(socket.SHUT_WR)
        assert b'"step":500' in read_until_closed(connection)


def test_an_idle_connection_is_closed_in_time(lone):
    began = time.monotonic()
    with connected(lone) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        until(connection, b"true")
        assert read_until_closed(connection) == b""
        assert time.monotonic() - began > 1.5, "keepalive_s is 2"


def test_a_header_with_an_underscore_does_not_pass_for_another(lone):
    with connected(lone) as connection:
        connection.sendall(post("under", b'{"observation": 1}', "Idempotency_Key: bad key"))
        assert b'"step":1' in until(connection, b'"step":1')


def test_beyond_its_connections_a_worker_waits_for_one_to_end(tiny_repository, monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--worker-connections 3")
    with running_service(tiny_repository, "memory://", workers=1) as service, ExitStack() as stack:
        held = [stack.enter_context(connected(service)) for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            until(connection, b"true")
        more = stack.enter_context(connected(service))
        more.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: "not accepting connections" in service.stderr(), BOUND_S, "the word of it")
        held[0].close()
        until(more, b"true")


def test_a_worker_that_has_answered_its_share_is_replaced_and_no_request_fails(tiny_repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--max-requests 30")
    with running_service(tiny_repository, f"sqlite:///{tmp_path}/state", workers=2) as service:
        first = set(service.workers())
        steps = []

        def both_are_new():
            answer = requests.post(  # a new connection each
                f"{service.url}/v1/models/{SINGLE}/clients/c/predict", json={"observation": 1.0}, timeout=BOUND_S
            )
            steps.append(answer.json()["step"])
            return not first & set(service.workers())

        wait_until(both_are_new, BOUND_S, "new workers")
    assert steps == list(range(1, len(steps) + 1))
