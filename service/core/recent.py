"""The records that this process saved last, so that a client's next step need not load what has just been in hand.

Nothing is believed on that ground: a step from a remembered record counts only if the store, when it saves, still has
the very record that was remembered. Where it has not, others have written, and the step is taken anew from what is
stored. So what is remembered saves a load, and decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

from service.core.ports import Stored
from service.core.types import ClientKey

MOST_BYTES = 16 * 1024 * 1024  # of records; some thousand clients
ENTRY_BYTES = 400  # of what is around each
APART = 64  # steps of a client that others wrote as well, until its record is remembered again
_MOST_SHARED = 65_536


class Recent:
    """Records by client, the ones used longest ago let go first. Safe from any thread."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[ClientKey, Stored] = OrderedDict()
        self._bytes = 0
        self._shared: dict[ClientKey, int] = {}  # clients that others write, and for how many steps they are left alone
        self._lock = Lock()

    def take(self, key: ClientKey) -> Stored | None:
        """The client's record, if it is remembered; it is not any more."""
        with self._lock:
            stored = self._kept.pop(key, None)
            if stored is not None:
                self._bytes -= len(stored.blob) + ENTRY_BYTES
            return stored

    def take_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """`take` of each."""
        with self._lock:
            pop = self._kept.pop
            found = [pop(key, None) for key in keys]
            self._bytes -= sum([len(stored[1]) + ENTRY_BYTES for stored in found if stored is not None])
            return found

    def keep(self, key: ClientKey, stored: Stored) -> None:
        """Remember what was saved just now."""
        with self._lock:
            self._keep(key, stored)

    def keep_many(self, saved: Iterable[tuple[ClientKey, Stored]]) -> None:
        """`keep` of each."""
        with self._lock:
            for key, stored in saved:
                self._keep(key, stored)

    def overtaken(self, key: ClientKey) -> None:
        """Others have written the client's record: its next steps load it, rather than be taken twice."""
        with self._lock:
            if len(self._shared) >= _MOST_SHARED:
                self._shared.clear()
            self._shared[key] = APART

    def _keep(self, key: ClientKey, stored: Stored) -> None:
        if key in self._shared:
            left = self._shared.pop(key)
            if left > 1:
                self._shared[key] = left - 1
            return
        before = self._kept.pop(key, None)
        if before is not None:
            self._bytes -= len(before.blob) + ENTRY_BYTES
        self._kept[key] = stored
        self._bytes += len(stored.blob) + ENTRY_BYTES
        while self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.blob) + ENTRY_BYTES
