"""Room on a disk that was full: a shard's log is moved into its file and cut before anything is added to it.

Moving may need room itself, for the file to grow. Writers who went on would take the little that comes back for their
log, each time before the checkpointer gets to it, and the store would stay full while there is room enough.
"""

from __future__ import annotations

import sqlite3
import time

from service.core.patience import give_way

PAUSES = 4  # between two attempts passes this many times what the first one took


class Room:
    """One shard's attempts, made by whoever has the writers' turn: so no writer begins the log anew meanwhile."""

    def __init__(self) -> None:
        self._next_attempt = 0.0
        self._error: sqlite3.Error | None = None

    def make(self, connection: sqlite3.Connection) -> bool:
        """True if the log has been cut; False if readers keep it, with what is in it moved as far as they allow.

        The driver's error if there is no room to move it into, at once where that was tried just before. Who is in a
        hurry gives way to one that can wait for the disk.
        """
        begun = time.monotonic()
        if begun < self._next_attempt:
            if self._error is not None:
                raise self._error.with_traceback(None)
            return False
        give_way()
        self._error = None
        (wait_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute("PRAGMA busy_timeout=0")  # readers are not waited for in the turn
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            self._error = error
            raise
        finally:
            connection.execute(f"PRAGMA busy_timeout={wait_ms}")
            now = time.monotonic()
            self._next_attempt = now + PAUSES * (now - begun)
        return not busy
