"""Starts the servers to measure and tells what they take: time until ready, memory of each worker."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.load import BenchmarkFailed

READY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `ready_s` is the time from process start to the first 200 on the asked path."""

    pid: int
    port: int
    ready_s: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def workers(self) -> list[int]:
        """The pids of its worker processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


def empty_endpoint(port: int) -> list[str]:
    """The command of the reference: the empty endpoint under gunicorn gthread, one worker with eight threads."""
    return [
        sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", "8",
        "--keep-alive", "75", "--log-level", "warning", "--bind", f"127.0.0.1:{port}", "benchmarks.empty:create_app()",
    ]  # fmt: skip


def service(port: int, workers: int, models: Path, state: Path | str, server: str = "gunicorn") -> list[str]:
    """The command of our service over a sqlite store in the folder `state`, or over the store of that URL."""
    url = state if isinstance(state, str) else f"sqlite:///{state}"
    return [
        sys.executable, "-m", "service", "--port", str(port), "--workers", str(workers), "--models-dir", str(models),
        "--state-url", url, "--log-level", "warning", "--server", server,
    ]  # fmt: skip


def has_granian() -> bool:
    """Whether the service can be served by granian here."""
    return find_spec("granian") is not None


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, path: str, log: Path) -> Iterator[Server]:
    """`command` as a process, from the moment that `path` answers 200 until the block ends."""
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            while not _answers(port, path):
                if process.poll() is not None or time.perf_counter() - started > READY_WITHIN_S:
                    raise BenchmarkFailed(f"{' '.join(command)} did not get ready:\n{log.read_text()[-2000:]}")
                time.sleep(0.01)
            yield Server(process.pid, port, time.perf_counter() - started)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes (1e6 bytes), pages shared with others included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_s(server: Server) -> float:
    """Processor time that the server's workers have used, threads that have ended included."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.workers()]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def cpu_ms(pid: int) -> float:
    """Milliseconds that the threads a process has now have spent on a processor: what others' load does not add to."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def has_tensorflow(pid: int) -> bool:
    """Whether TensorFlow's libraries are mapped into a process."""
    return "/tensorflow/" in Path(f"/proc/{pid}/maps").read_text()
