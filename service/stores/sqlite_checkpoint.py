"""The checkpointer: moves what was written from each shard's log into its file, off the path of requests.

A passive checkpoint holds nobody up but can't shorten a log that is always in use, so a log that has grown too long
(or met a full disk) is cut under the writers' turn.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from service.core.errors import StoreUnavailable
from service.stores.sqlite_folder import lock_file
from service.stores.sqlite_shard import WAIT_S, Shard, Turn

EVERY_S = 0.5
MAX_LOG_BYTES = 64 * 2**20


class Checkpointer:
    """A thread of this process, begun by `start` and ended by `close`, with connections of its own."""

    def __init__(
        self, shards: Sequence[Shard], *, every_s: float = EVERY_S, max_log_bytes: int = MAX_LOG_BYTES
    ) -> None:
        self.running = False
        self._shards = shards
        self._every_s = every_s
        self._max_log_bytes = max_log_bytes
        self._connections: dict[Shard, sqlite3.Connection] = {}
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
        """Waits for the round under way and lets no other begin."""
        self._guard.acquire()
        self._give_back()

    def after_fork(self, *, child: bool) -> None:
        """Lets rounds begin again; the child has no thread until it writes."""
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
        """One shard's round. What fails is tried again in the next one; writers meet the same trouble and report it."""
        shard.dirty = False
        try:
            connection = self._connections.get(shard)
            if connection is None:
                connection = self._connections[shard] = shard.connect()
            _, logged, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if shard.full or self._log_bytes(shard) > self._max_log_bytes:
                self._cut(shard, connection)
            elif moved < logged:
                shard.dirty = True
        except (sqlite3.Error, OSError, StoreUnavailable):
            shard.dirty = True
            self._drop(shard)

    def _cut(self, shard: Shard, connection: sqlite3.Connection) -> None:
        turn = Turn(lock_file(shard.file))
        try:
            turn.take(time.monotonic() + WAIT_S)
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            turn.close()
        if busy:
            shard.dirty = True
        else:
            shard.full = False

    @staticmethod
    def _log_bytes(shard: Shard) -> int:
        return shard.file.with_name(f"{shard.file.name}-wal").stat().st_size

    def _drop(self, shard: Shard) -> None:
        connection = self._connections.pop(shard, None)
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _give_back(self) -> None:
        for shard in list(self._connections):
            self._drop(shard)
