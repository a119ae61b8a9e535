"""Turns among processes on a file: what makes the waiting fair."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from service.core.errors import StoreUnavailable
from service.core.patience import give_way

WAIT_S = 2.0
SHORT_S = 0.001


class Turn:
    """The writers' turn at a shard. SQLite's own lock starves the unlucky; correctness does not rest on this one.

    Each holder has its own descriptor, so that two of one process exclude each other too. One thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def try_take(self) -> bool:
        """Takes the turn if nobody has it. StoreUnavailable if the file can't be opened."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise StoreUnavailable(f"the store's lock file can't be opened ({error})") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(f"the store's lock file can't be locked ({error})") from error
        return True

    def take(self, end: float) -> None:
        """Waits for the turn; StoreUnavailable at `end` of time.monotonic(), WAIT_S after the waiting began.

        Who is in a hurry waits for SHORT_S, some dozens of turns, then gives way.
        """
        while not self.try_take():
            now = time.monotonic()
            if now >= end - WAIT_S + SHORT_S:
                give_way()
            if now >= end:
                raise StoreUnavailable(f"other writers held this shard of the store for {WAIT_S:g} s")
            time.sleep(20e-6)  # a turn takes about as long

    def give(self) -> None:
        """Ends the turn."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Gives the descriptor back; taking the turn opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
