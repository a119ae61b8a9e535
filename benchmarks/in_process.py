"""The service in this process, asked by raw bytes over a connection whose transport goes nowhere.

    python -m benchmarks.in_process MODELS_DIR PREDICTS

answers so many predicts after its warming up: what two runs differ in is what the predicts of the longer one cost.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bundle import NAME
from benchmarks.load import BenchmarkFailed
from service.server.connection import Connection
from service.server.house import Bounds, House

CLIENTS = 20
WARM = 12 * CLIENTS  # until records hold the requests that they remember, and caches what they cache
BOUNDS = Bounds(65536, 65536, 131072, 100, 10.0, 75.0)


class Nowhere(asyncio.Transport):
    """A transport that counts the answers written to it, and keeps the last."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answers = 0
        self.last = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """One answer: the service writes each whole."""
        self.answers += 1
        self.last = bytes(data)

    def is_closing(self) -> bool:
        """It never is."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing waits here."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """A connection that closes has refused something."""
        raise BenchmarkFailed(f"the service closed the connection: {self.last!r}")


class Asked:
    """One connection to the service in this process."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sent = 0
        self._transport = Nowhere()
        self._connection = Connection(house)
        self._connection.connection_made(self._transport)
        self.gave_way = 0

    def predict(self, requests: int) -> None:
        """So many predicts of CLIENTS in turn, one after the other. BenchmarkFailed if an answer was not 200."""
        for _ in range(requests):
            raw, before = self._request(), self._transport.answers
            self._connection.get_buffer(-1)[: len(raw)] = raw
            self._connection.buffer_updated(len(raw))
            while self._transport.answers == before:  # what would wait has gone to a thread
                self.gave_way += 1
                self._loop.run_until_complete(asyncio.sleep(0.0005))
            if not self._transport.last.startswith(b"HTTP/1.1 200 "):
                raise BenchmarkFailed(f"a predict was answered {self._transport.last!r}")

    def _request(self) -> bytes:
        client, hour = self._sent % CLIENTS, self._sent // CLIENTS
        self._sent += 1
        weather = 20 + math.sin(hour), 10 + math.cos(hour), 1012 + 2 * math.sin(hour / 5)
        body = '{{"observation": [{:.1f}, {:.1f}, {:.1f}]}}'.format(*weather)
        head = f"POST /v1/models/{NAME}/clients/c{client}/predict HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@contextmanager
def in_process(models: Path) -> Iterator[Asked]:
    """A warm service of `models` over a sqlite store of its own, metrics as its workers have them."""
    with tempfile.TemporaryDirectory(prefix="recurve-in-process-") as folder:
        metrics = Path(folder) / "metrics"
        metrics.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)  # read when prometheus_client is imported
        from service.bootstrap import build
        from service.settings import Settings

        service = build(Settings(models_dir=models, state_url=f"sqlite:///{folder}/state", log_level="warning"))
        loop = asyncio.new_event_loop()
        try:
            asked = Asked(House(service.app, loop, 2, BOUNDS, service.kinds), loop)
            asked.predict(WARM)
            yield asked
        finally:
            service.close()
            loop.close()


if __name__ == "__main__":
    with in_process(Path(sys.argv[1])) as asked:
        asked.predict(int(sys.argv[2]))
        print(f"predicts that went to a thread: {asked.gave_way}")
