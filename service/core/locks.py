"""One writer per client inside a process; across processes the store's compare-and-set decides."""

from __future__ import annotations

from threading import Lock

from service.core.types import ClientKey


class StripedLocks:
    """A fixed number of locks shared by all clients, each client always under the same one."""

    def __init__(self, stripes: int = 1024) -> None:
        self._locks = tuple(Lock() for _ in range(stripes))

    def of(self, key: ClientKey) -> Lock:
        """The lock of `key`."""
        return self._locks[hash(key) % len(self._locks)]
