"""The records that this process saved last, so that a client's next step need not load what has just been in hand.

Nothing is believed on that ground: a step from a remembered record counts only if the store, when it saves, still has
the very record that was remembered. Where it has not, others have written, and the step is taken anew from what is
stored. So what is remembered saves a load, and decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

from service.core.blocks import Block, Blocks
from service.core.ports import Stored
from service.core.types import ClientKey

MOST_BYTES = 16 * 1024 * 1024  # of records saved one by one, and as much of those saved together: some thousand clients
ENTRY_BYTES = 400  # of what is around each
APART = 64  # steps of a client that others wrote as well, until its record is remembered again
_MOST_SHARED = 65_536


class Recent:
    """Records by client, the ones used longest ago let go first. Safe from any thread.

    A record is here once: by itself, or in the block of those it was saved with.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[ClientKey, Stored] = OrderedDict()
        self._blocks = Blocks(most_bytes)
        self._bytes = 0
        self._shared: dict[ClientKey, int] = {}  # clients that others write, and for how many steps they are left alone
        self._lock = Lock()

    def take(self, key: ClientKey) -> Stored | None:
        """The client's record, if it is remembered; it is not any more."""
        with self._lock:
            return self._take(key)

    def take_block(self, keys: tuple[ClientKey, ...]) -> Block | None:
        """All records of these clients in one piece, where they were saved together last; they are not here any more.
        None for all else: `take_many` has what there is."""
        with self._lock:
            return self._blocks.take(keys)

    def take_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """`take` of each."""
        with self._lock:
            return [self._take(key) for key in keys]

    def keep(self, key: ClientKey, stored: Stored) -> None:
        """Remember what was saved just now."""
        with self._lock:
            self._keep(key, stored)

    def keep_many(self, saved: Iterable[tuple[ClientKey, Stored]]) -> None:
        """`keep` of each."""
        with self._lock:
            for key, stored in saved:
                self._keep(key, stored)

    def keep_block(self, block: Block) -> None:
        """Remember what was saved together just now."""
        with self._lock:
            if self._shared and not self._shared.keys().isdisjoint(block.keys):
                for key, nonce, row in zip(*block, strict=True):
                    self._keep(key, Stored(nonce, row.tobytes()))
                return
            if not self._blocks.knows(block.keys):
                for key in block.keys:
                    self._pop(key)
            self._blocks.keep(block)

    def overtaken(self, key: ClientKey) -> None:
        """Others have written the client's record: its next steps load it, rather than be taken twice."""
        with self._lock:
            if len(self._shared) >= _MOST_SHARED:
                self._shared.clear()
            self._shared[key] = APART

    def _take(self, key: ClientKey) -> Stored | None:
        return self._pop(key) or self._blocks.take_one(key)

    def _pop(self, key: ClientKey) -> Stored | None:
        stored = self._kept.pop(key, None)
        if stored is not None:
            self._bytes -= len(stored.blob) + ENTRY_BYTES
        return stored

    def _keep(self, key: ClientKey, stored: Stored) -> None:
        self._pop(key)
        self._blocks.forget(key)
        if key in self._shared:
            left = self._shared.pop(key)
            if left > 1:
                self._shared[key] = left - 1
            return
        self._kept[key] = stored
        self._bytes += len(stored.blob) + ENTRY_BYTES
        while self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.blob) + ENTRY_BYTES
