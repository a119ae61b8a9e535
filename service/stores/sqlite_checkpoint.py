"""The checkpointer: keeps the shards' logs short, off the path of requests.

Moving a log holds nobody up but can't shorten one that is always in use, so a log that has grown too long (or met a
full disk) is cut in the writers' turn.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from service.core.errors import StoreUnavailable
from service.stores.sqlite_log import Log
from service.stores.sqlite_shard import Shard
from service.stores.sqlite_turn import Turn

EVERY_S = 0.5
MAX_LOG_BYTES = 64 * 2**20


class Checkpointer:
    """A thread of this process, begun by `start` and ended by `close`. Among processes one works at a time."""

    def __init__(
        self, shards: Sequence[Shard], lock: Path, *, every_s: float = EVERY_S, max_log_bytes: int = MAX_LOG_BYTES
    ) -> None:
        self.running = False
        self._shards = shards
        self._turn = Turn(lock)
        self._every_s = every_s
        self._max_log_bytes = max_log_bytes
        self._logs: dict[Shard, Log] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._closed = False

    def start(self) -> None:
        """Begins the thread unless it runs or all is closed."""
        with self._guard:
            if self.running or self._closed:
                return
            threading.Thread(target=self._run, args=(self._stop,), name="recurve-checkpoint", daemon=True).start()
            self.running = True

    def close(self) -> None:
        """Ends the thread and gives its connections back."""
        self._stop.set()
        with self._guard:
            self._closed = True
            self._give_back()

    def before_fork(self) -> None:
        """Waits for the shard at work and lets no other begin."""
        self._guard.acquire()
        self._give_back()

    def after_fork(self, *, child: bool) -> None:
        """Lets work begin again; the child has no thread until it writes."""
        if child:
            self._stop = threading.Event()
            self.running = False
        self._guard.release()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._every_s):
            for shard in self._shards:
                if shard.dirty or shard.full:
                    with self._guard:
                        if not self._closed:
                            self._checkpoint(shard)

    def _checkpoint(self, shard: Shard) -> None:
        """One shard, in this process's turn. What fails is tried again; writers meet the same trouble and report it."""
        try:
            if self._turn.try_take():
                try:
                    self._shorten(shard)
                finally:
                    self._turn.give()
        except (sqlite3.Error, OSError, StoreUnavailable):
            shard.dirty = True
            log = self._logs.pop(shard, None)
            if log is not None:
                log.close()

    def _shorten(self, shard: Shard) -> None:
        log = self._logs.get(shard)
        if log is None:
            log = self._logs[shard] = Log(shard)
        shard.dirty = False
        if not shard.full and not log.move():
            shard.dirty = True
        if shard.full or log.bytes() > self._max_log_bytes:
            if log.cut():
                shard.full = False
            else:
                shard.dirty = True

    def _give_back(self) -> None:
        while self._logs:
            self._logs.popitem()[1].close()
        self._turn.close()
