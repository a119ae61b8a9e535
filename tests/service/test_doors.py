"""How a worker is reached: over TLS and by a unix socket; and that no connection is lost when one takes over."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.test_connections import connected, post, refusal, until
from tests.serving import ServiceFailed, read_until_closed, running_service, wait_until

BOUND_S = 120.0
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody but itself vouches for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def running_with(arguments, monkeypatch, models, ready, **settings):
    """The service with gunicorn's `arguments`, which it is not asked over plain HTTP whether it is ready."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)
    monkeypatch.setattr("tests.serving.Running.status", lambda self, path, timeout_s=10.0: 200 if ready(self) else None)
    return running_service(models, "memory://", workers=1, **settings)


def test_tls(certificate, tiny_repository, monkeypatch):
    context = ssl.create_default_context(cafile=certificate[0])

    def ready(service):
        return "Serves" in service.stdout()

    arguments = f"--certfile {certificate[0]} --keyfile {certificate[1]} --worker-connections 5"
    with running_with(arguments, monkeypatch, tiny_repository, ready) as service, ExitStack() as stack:

        def ask():
            return stack.enter_context(
                context.wrap_socket(stack.enter_context(connected(service)), server_hostname="127.0.0.1")
            )

        connection = ask()
        for step in (1, 2):
            connection.sendall(post("c", b'{"observation": 1}'))
            assert b"HTTP/1.1 200 " in until(connection, f'"step":{step}'.encode())
        connection.sendall(post("c", json.dumps({"observations": [1.0] * 500}).encode()))
        until(connection, b'"step":502')
        broken = ask()
        broken.sendall(b"nonsense\r\n\r\n")
        assert refusal(read_until_closed(broken))["status"] == 400
        with connected(service) as plain:
            plain.sendall(LIVEZ)
            assert b"HTTP/1.1 200" not in plain.recv(100)
        for _ in range(8):  # they never shake hands, and count all the same
            stack.enter_context(connected(service))
        wait_until(lambda: "not accepting connections" in service.stderr(), BOUND_S, "the word of it")
        stack.close()
        assert service.terminate() == 0
        assert "Traceback" not in service.stderr()


def test_with_a_broken_certificate_nothing_is_served_in_the_clear(certificate, tiny_repository, tmp_path, monkeypatch):
    broken = tmp_path / "cert.pem"
    broken.write_text("nothing of the kind")

    def ready(service):
        with contextlib.suppress(ConnectionError), connected(service) as plain:
            plain.sendall(LIVEZ)
            return b"HTTP/1.1 200" in plain.recv(100)
        return False

    arguments = f"--certfile {broken} --keyfile {certificate[1]}"
    served = running_with(arguments, monkeypatch, tiny_repository, ready)
    with pytest.raises(ServiceFailed, match="Failed to create SSL context"), served:
        pass


def test_a_unix_socket(tiny_repository, tmp_path, monkeypatch):
    path = tmp_path / "door"
    arguments = f"--bind unix:{path}"

    def ready(service):
        """It is there before anybody listens at it."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    with running_with(arguments, monkeypatch, tiny_repository, ready, access_log=True) as service:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(BOUND_S)
            connection.connect(str(path))
            connection.sendall(LIVEZ)
            assert b"HTTP/1.1 200 " in read_until_closed(connection)
        assert service.terminate() == 0
        assert "Traceback" not in service.stderr()


def test_who_is_let_in_as_a_worker_ends_is_answered(tiny_repository):
    with running_service(tiny_repository, "memory://", workers=1) as service, ExitStack() as stack:
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)  # all of this finds the loop in one round
        wait_until(lambda: ") T " in Path(f"/proc/{worker}/stat").read_text(), BOUND_S, "the worker stopped")
        peers = [stack.enter_context(connected(service)) for _ in range(20)]
        for peer in peers:
            peer.sendall(LIVEZ)
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(service.workers()) == 2, BOUND_S, "the next worker")
        os.kill(worker, signal.SIGCONT)
        for peer in peers:
            assert read_until_closed(peer).startswith(b"HTTP/1.1 200 ")
