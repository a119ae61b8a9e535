"""One writer per client inside a process; across processes the store's compare-and-set decides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import TIMEOUT_MAX, Lock

from service.core.types import ClientKey


class ClientLocks:
    """A lock for each client that is being written now: a long history of one holds up nobody else.

    Safe from any thread. A lock is there while somebody holds it, so that a million clients leave nothing behind.
    """

    def __init__(self) -> None:
        self._held: dict[ClientKey, Lock] = {}

    def take(self, key: ClientKey, wait_s: float = 0.0) -> bool:
        """Whether the client's lock is the caller's now, who gives it back; if others have it, after `wait_s` at most.

        Two of one client meet in the dictionary, whose `setdefault` is one step for all threads.
        """
        own = Lock()
        own.acquire()
        holder = self._held.setdefault(key, own)
        if holder is own:
            return True
        end = time.monotonic() + wait_s
        while wait_s > 0.0 and holder.acquire(timeout=wait_s):
            holder.release()  # to the next that waits for the same
            holder = self._held.setdefault(key, own)
            if holder is own:
                return True
            wait_s = end - time.monotonic()
        return False

    def give(self, key: ClientKey) -> None:
        """Ends what `take` began."""
        self._held.pop(key).release()

    @contextmanager
    def of(self, key: ClientKey) -> Iterator[None]:
        """Within, the client's lock is the caller's, however long that has to be waited for."""
        self.take(key, TIMEOUT_MAX / 2)
        try:
            yield
        finally:
            self.give(key)
