"""Lines of any number over the real service: answered while they arrive, in constant memory, whatever the peer does."""

import json
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import SINGLE
from tests.serving import running_service, wait_until

BOUND_S = 60.0
PATH = f"/v1/models/{SINGLE}/predict"


@pytest.fixture(scope="module")
def lone(tiny_repository, tmp_path_factory):
    """One worker with two threads, whose memory is easy to see."""
    state = tmp_path_factory.mktemp("state")
    with running_service(tiny_repository, f"sqlite:///{state}/s", workers=1, threads=2) as running:
        yield running


def line(client, value, **more):
    return json.dumps({"client": client, "observation": [value], **more}).encode() + b"\n"


@contextmanager
def streaming(service, *headers, version="1.1"):
    """A connection on which a body in chunks has begun."""
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.settimeout(BOUND_S)
        fields = ["Host: x", "Content-Type: application/x-ndjson", *headers]
        if version == "1.1":
            fields.append("Transfer-Encoding: chunked")
        connection.sendall("\r\n".join([f"POST {PATH} HTTP/{version}", *fields, "", ""]).encode())
        yield connection


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answers:
    """What comes back on a connection: the head, then lines."""

    def __init__(self, connection):
        self.file = connection.makefile("rb")
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            read = self.file.readline()
            assert read, self.head
            self.head += read
        self.rest, self.ended = b"", False

    def lines(self, least):
        """So many lines at least, or all there are."""
        while self.rest.count(b"\n") < least and not self.ended:
            size = self.file.readline()
            if not size:
                raise ConnectionResetError("cut off")
            part = self.file.read(int(size, 16))
            self.file.readline()
            self.ended = not part
            self.rest += part
        *found, self.rest = self.rest.split(b"\n")
        return [json.loads(one) for one in found]


def view(service, client):
    answer = requests.get(f"{service.url}/v1/models/{SINGLE}/clients/{client}", timeout=30)
    return answer.json()["step"] if answer.status_code == 200 else 0


def memory_mb(service):
    status = Path(f"/proc/{service.workers()[0]}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def peak_mb(service):
    status = Path(f"/proc/{service.workers()[0]}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_lines_are_answered_while_the_body_goes_on(lone):
    with streaming(lone) as connection:
        answers = Answers(connection)
        assert answers.head.startswith(b"HTTP/1.1 200 OK\r\n")
        for step in range(1, 6):
            connection.sendall(chunk(line("talks", step)))
            (told,) = answers.lines(1)
            assert (told["client"], told["step"]) == ("talks", step)
        connection.sendall(b"0\r\n\r\n")
        assert answers.lines(1) == []
        assert answers.ended
        # and the connection lives on
        connection.sendall(f"GET /v1/models/{SINGLE}/clients/talks HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_two_hundred_thousand_lines_take_no_more_memory_than_some(lone):
    """The first lines show what the worker needs; a hundred times as many raise its peak by little."""
    clients, rounds = 400, 500

    def body(count):
        for number in range(count):
            yield b"".join(line(f"long-{client}", number % 7, step=number + 1) for client in range(clients))

    def send(parts):
        seen, last = 0, None
        with streaming(lone) as connection:
            sender = threading.Thread(target=feed, args=(connection, parts), daemon=True)
            sender.start()
            answers = Answers(connection)
            while not answers.ended:
                for told in answers.lines(1):
                    seen += 1
                    last = told
                    assert "step" in told, told
            sender.join(BOUND_S)
        return seen, last

    def feed(connection, parts):
        for part in parts:
            connection.sendall(chunk(part))
        connection.sendall(b"0\r\n\r\n")

    assert send(body(10))[0] == 10 * clients
    before = peak_mb(lone)
    seen, last = send(b"".join(line(f"long-{c}", n % 7, step=11 + n) for c in range(clients)) for n in range(rounds))
    assert (seen, last["step"]) == (rounds * clients, 10 + rounds)
    assert seen == 200_000
    assert peak_mb(lone) < before + 40


def test_a_peer_that_goes_away_keeps_what_was_absorbed_and_can_go_on(lone):
    with streaming(lone) as connection:
        connection.sendall(chunk(b"".join(line("leaves", n, step=n + 1) for n in range(30))))
        answered = len(Answers(connection).lines(30))
        connection.sendall(b"ffff\r\n" + line("leaves", 30, step=31)[:-3])
    assert answered == 30
    assert view(lone, "leaves") == 30
    with streaming(lone) as connection:
        connection.sendall(chunk(line("leaves", 30, step=31)) + b"0\r\n\r\n")
        assert [told["step"] for told in Answers(connection).lines(1)] == [31]


def test_who_reads_no_answers_is_read_no_further_and_holds_nobody_up(lone):
    """Sent without reading until the service takes no more; others are answered, and memory stays."""
    with streaming(lone) as connection:
        connection.settimeout(2.0)
        sent, part = 0, chunk(b"".join(line(f"deaf-{n}", 1.0) for n in range(500)))
        before = memory_mb(lone)
        try:
            while sent < 200_000_000:
                connection.sendall(part)
                sent += len(part)
        except TimeoutError:
            pass
        assert sent < 200_000_000
        answer = requests.post(
            f"{lone.url}/v1/models/{SINGLE}/clients/beside/predict", json={"observation": [1.0]}, timeout=30
        )
        assert answer.status_code == 200
        assert memory_mb(lone) < before + 40


def test_silent_streams_hold_no_thread(lone):
    """More of them than there are threads."""
    with ExitStack() as stack:
        connections = [stack.enter_context(streaming(lone)) for _ in range(6)]
        for number, connection in enumerate(connections):
            connection.sendall(chunk(line(f"silent-{number}", 1.0)))
            assert len(Answers(connection).lines(1)) == 1
        history = {"observations": [[1.0]] * 200}
        answer = requests.put(f"{lone.url}/v1/models/{SINGLE}/clients/h/history", json=history, timeout=30)
        assert answer.status_code == 200
        for connection in connections:
            connection.sendall(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "torn", [b"zz\r\n", b"5\r\nab", b'6\r\n{"clie\r\n'], ids=["no chunk", "half a chunk", "half a line"]
)
def test_a_body_that_breaks_off_has_no_end_of_its_answers(lone, torn):
    with streaming(lone) as connection:
        connection.sendall(chunk(line("torn", 1.0)))
        answers = Answers(connection)
        assert len(answers.lines(1)) == 1
        connection.sendall(torn)
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            answers.lines(1)
        assert not answers.ended


def test_http_1_0_gets_its_lines_and_the_end_of_the_connection(lone):
    body = line("old", 1.0) + line("old", 2.0)
    with streaming(lone, f"Content-Length: {len(body)}", version="1.0") as connection:
        connection.sendall(body)
        head, _, rest = connection.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"chunked" not in head
        assert [json.loads(one)["step"] for one in rest.splitlines()] == [1, 2]


def test_a_body_that_waits_for_leave_gets_it(lone):
    with streaming(lone, "Expect: 100-continue") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(chunk(line("leave", 1.0)) + b"0\r\n\r\n")
        got = b""
        while b"\r\n0\r\n\r\n" not in got:
            got += connection.recv(65536)
        assert b'"client":"leave"' in got


def test_a_refused_stream_is_answered_at_once_and_its_body_thrown_away(lone):
    with socket.create_connection(("127.0.0.1", lone.port)) as connection:
        connection.settimeout(BOUND_S)
        connection.sendall(
            b"POST /v1/models/none/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")
        connection.sendall(chunk(line("c", 1.0)) + b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_behind_a_stream_wait_for_its_end(lone):
    with streaming(lone) as connection:
        connection.sendall(chunk(line("first", 1.0)) + b"0\r\n\r\n" + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        got = b""
        while got.count(b'{"live":true}') < 2:
            piece = connection.recv(65536)
            assert piece, got
            got += piece
        assert got.index(b'"client":"first"') < got.index(b'{"live":true}')


def test_a_stop_cuts_a_stream_off_behind_what_it_has_answered(tiny_repository, tmp_path):
    with (
        running_service(tiny_repository, f"sqlite:///{tmp_path}/s", workers=1) as service,
        streaming(service) as connection,
    ):
        connection.sendall(chunk(line("stopped", 1.0, step=1)))
        answers = Answers(connection)
        steps = [told["step"] for told in answers.lines(1)]
        stopper = threading.Thread(target=service.terminate)
        stopper.start()
        number = 1
        try:
            while True:
                number += 1
                connection.sendall(chunk(line("stopped", 1.0, step=number)))
                steps += [told["step"] for told in answers.lines(1)]
                time.sleep(0.01)
        except OSError:
            pass
        stopper.join(BOUND_S)
        assert not answers.ended
        wait_until(lambda: service.process.poll() is not None, 30, "the service ends")
    with running_service(tiny_repository, f"sqlite:///{tmp_path}/s", workers=1) as service:
        assert view(service, "stopped") == len(steps)
