"""The real service for tests and benchmarks: `python -m service` on a free port, with gunicorn and all."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
READY_S = 180.0
STOP_S = 40.0


class ServiceFailed(Exception):
    """The service ended, or did not get ready in time; the message holds what it logged."""


@dataclass
class Running:
    """A service under way. `url` has no slash at its end, `pid` is the master's."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    ready_s: float | None
    _out: IO[bytes]
    _err: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> list[int]:
        """Process ids of the master's children."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def stdout(self) -> str:
        """What it printed so far."""
        return _content(self._out)

    def stderr(self) -> str:
        """What it logged so far, one JSON object a line."""
        return _content(self._err)

    def status(self, path: str, timeout_s: float = 30.0) -> int | None:
        """The status that a GET answers, None if nothing answers."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout_s) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except (OSError, TimeoutError):
            return None

    def kill_group(self) -> None:
        """SIGKILL to the master and its workers at once."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def terminate(self) -> int:
        """SIGTERM to the master; its exit code once it has ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


def wait_until(condition: Callable[[], bool], bound_s: float, what: str, every_s: float = 0.02) -> None:
    """Polls `condition` until it holds; TimeoutError naming `what` after `bound_s`."""
    deadline = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {bound_s:g} s")
        time.sleep(every_s)


def read_until_closed(connection: socket.socket) -> bytes:
    """Everything until the service closes."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def free_port(beside: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on now, nor on the one `beside` it, so many numbers above.

    Below those that the system gives to whoever connects: between now and its use it is not taken by a client.
    """
    while True:
        port = _LOWEST_PORT + secrets.randbelow(_FIRST_OF_CLIENTS - _LOWEST_PORT - beside)
        try:
            for each in {port, port + beside}:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


_LOWEST_PORT = 10_000
_FIRST_OF_CLIENTS = max(32_768, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))


@contextmanager
def running_service(
    models_dir: Path | str,
    state_url: str,
    workers: int = 2,
    *,
    wait_ready: bool = True,
    module: str = "service",
    **settings: Any,
) -> Iterator[Running]:
    """Starts `python -m service`, waits until /readyz answers 200, and ends it by its pid after the block.

    `settings` are further settings by name (`access_log=True`, `max_clients=3`, `port=8000`). Without `wait_ready` it
    waits until the service answers at all. `module` is run instead, if it becomes the service as well. ServiceFailed
    with the log if it ends or takes longer than READY_S.
    """
    settings = {"port": free_port(), **settings}
    named = {"models_dir": models_dir, "state_url": state_url, "workers": workers, **settings}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RECURVE_", "PROMETHEUS_"))
    }
    environment.update({f"RECURVE_{name.upper()}": str(value) for name, value in named.items()})
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        environment["TMPDIR"] = scratch  # a killed master can't clear its own
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        running = Running(f"http://127.0.0.1:{settings['port']}", settings["port"], process, None, out, err)
        try:
            path = "/readyz" if wait_ready else "/livez"
            while running.status(path, timeout_s=1.0) != 200:
                if process.poll() is not None or time.monotonic() - began > READY_S:
                    raise ServiceFailed(f"exit code {process.poll()}\n{running.stdout()}\n{running.stderr()}")
                time.sleep(0.02)
            running.ready_s = time.monotonic() - began
            yield running
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


def _content(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 10_000_000, 0).decode(errors="replace")
