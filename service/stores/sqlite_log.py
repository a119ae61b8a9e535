"""Moving one shard's write-ahead log into its file, without ever letting a writer begin the log anew meanwhile.

SQLite up to 3.51.2 can corrupt a database whose log is begun anew just while a checkpoint starts on a log already
moved as a whole (sqlite.org/wal.html#walresetbug), and checkpoints beside busy writers are what we do all day. A log
is begun anew only if all of it is moved and nobody reads from it. So before each checkpoint, in the writers' turn, one
page is written and a reader placed on it: from then until the reader leaves, there can be no new beginning.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.stores.sqlite_folder import SCHEMA, lock_file
from service.stores.sqlite_shard import Shard
from service.stores.sqlite_turn import WAIT_S, Turn


class Log:
    """One shard's log, with connections of its own. One `Log` of a shard may be at work at a time on the machine.

    Errors are the driver's: sqlite3.Error, OSError, or StoreUnavailable where writers never gave the turn.
    """

    def __init__(self, shard: Shard) -> None:
        self._file = shard.file
        self._turn = Turn(lock_file(shard.file))
        self._mover = shard.connect()
        try:
            self._reader = shard.connect()
        except BaseException:
            self._mover.close()
            raise

    def bytes(self) -> int:
        """How long the log is now."""
        return self._file.with_name(f"{self._file.name}-wal").stat().st_size

    def move(self) -> bool:
        """Moves what is in the log while writers write on; False if a part stays, most often what came meanwhile."""
        with self.continued():
            (busy, logged, moved) = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(not busy and moved == logged)

    def cut(self) -> bool:
        """Moves all of the log and cuts it to nothing, in the writers' turn; False if readers were in the way."""
        with self._writers_waiting():
            (busy, _, _) = self._mover.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    @contextmanager
    def continued(self) -> Iterator[None]:
        """Within the block writers add to the log and none begins it anew, even if all of it has been moved."""
        with self._writers_waiting():
            self._mover.execute(f"PRAGMA user_version={SCHEMA}")
            self._reader.execute("BEGIN")
            self._reader.execute("PRAGMA user_version").fetchone()
        try:
            yield
        finally:
            self._reader.execute("ROLLBACK")

    def close(self) -> None:
        """Gives the connections back."""
        for connection in (self._reader, self._mover):
            with suppress(sqlite3.Error):
                connection.close()
        self._turn.close()

    @contextmanager
    def _writers_waiting(self) -> Iterator[None]:
        self._turn.take(time.monotonic() + WAIT_S)
        try:
            yield
        finally:
            self._turn.give()
