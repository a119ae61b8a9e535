"""A Redis of the benchmark's own, set so that it keeps what is acknowledged."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.load import BenchmarkFailed
from benchmarks.servers import free_port

STARTS_S = 30.0


def find_redis() -> str:
    """The path of the server; BenchmarkFailed with what to install if there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise BenchmarkFailed("redis-server, which replicas share, is not installed: apt-get install redis-server")
    return found


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """The URL of a server on 127.0.0.1 with its files in `folder`, until the block ends."""
    folder.mkdir(parents=True)
    port = free_port()
    durable = "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", ""
    place = "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--daemonize", "no"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_redis(), *place, *durable], stdout=log, stderr=log)
    try:
        end = time.monotonic() + STARTS_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                raise BenchmarkFailed(f"redis-server did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=5) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
