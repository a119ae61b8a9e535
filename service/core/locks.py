"""One writer per client inside a process; across processes the store's compare-and-set decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from service.core.types import ClientKey


@dataclass(slots=True)
class _Held:
    """A client's lock while anybody has it or waits for it: so many do."""

    lock: Lock = field(default_factory=Lock)
    by: int = 0


class ClientLocks:
    """A lock for each client that is being written now: a long history of one holds up nobody else.

    Safe from any thread. Who waits for a client waits for its very lock, so that none is passed over by those that come
    again and again. Nothing is left of a lock that nobody wants.
    """

    def __init__(self) -> None:
        self._held: dict[ClientKey, _Held] = {}
        self._guard = Lock()

    def take(self, key: ClientKey, wait_s: float = 0.0) -> bool:
        """Whether the client's lock is the caller's now, who gives it back. If others have it, it is waited for as long
        as `wait_s`; without end if that is negative."""
        with self._guard:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held()
            held.by += 1
        taken = False
        try:
            taken = held.lock.acquire(timeout=wait_s) if wait_s else held.lock.acquire(False)
        finally:
            if not taken:
                self._leave(key, held)
        return taken

    def give(self, key: ClientKey) -> None:
        """Ends what `take` began."""
        held = self._held[key]
        self._leave(key, held)
        held.lock.release()

    @contextmanager
    def of(self, key: ClientKey) -> Iterator[None]:
        """Within, the client's lock is the caller's, however long that has to be waited for."""
        self.take(key, -1)
        try:
            yield
        finally:
            self.give(key)

    def _leave(self, key: ClientKey, held: _Held) -> None:
        with self._guard:
            held.by -= 1
            if held.by == 0:
                del self._held[key]
