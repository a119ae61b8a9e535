"""Records that one call of many clients saved, kept in one piece for the next call of the very same clients."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.core.ports import Stored
from service.core.types import ClientKey

CLIENT_BYTES = 300  # of what is known of each besides its record


class Block(NamedTuple):
    """Records ``rows`` (n, size) of `keys`, sealed by this process and saved under `nonces`; nobody writes into it."""

    keys: tuple[ClientKey, ...]
    nonces: list[bytes]
    rows: NDArray[np.uint8]


@dataclass(slots=True)
class _Held:
    """The place of a block; `block` is None while a call has it. `gone`: whose record has been taken by itself."""

    block: Block | None
    gone: set[ClientKey] = field(default_factory=set)


class Blocks:
    """Blocks of `most_bytes` in all, those used longest ago let go first. For one thread at a time.

    A client is in one block at most. Who is asked for again with the same clients in the same order costs one look-up.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[tuple[ClientKey, ...], _Held] = OrderedDict()
        self._of: dict[ClientKey, tuple[_Held, int]] = {}
        self._bytes = 0

    def take(self, keys: tuple[ClientKey, ...]) -> Block | None:
        """The block of exactly these clients, in this order, all of whose records are in it; it is not any more."""
        held = self._held.get(keys)
        if held is None or held.block is None or held.gone:
            return None
        self._bytes -= held.block.rows.nbytes
        block, held.block = held.block, None
        return block

    def take_one(self, key: ClientKey) -> Stored | None:
        """One client's record, if it is here; it is not any more."""
        found = self._of.get(key)
        if found is None:
            return None
        self.forget(key)
        held, at = found
        return None if held.block is None else Stored(held.block.nonces[at], held.block.rows[at].tobytes())

    def forget(self, key: ClientKey) -> None:
        """One client's record, if it is here, is not any more."""
        found = self._of.pop(key, None)
        if found is not None:
            found[0].gone.add(key)

    def knows(self, keys: tuple[ClientKey, ...]) -> bool:
        """Whether the last ones to be kept of these clients were theirs together, be it here or with a call."""
        held = self._held.get(keys)
        return held is not None and not held.gone

    def keep(self, block: Block) -> None:
        """Remember what was saved just now; what was remembered of these clients before is not any more."""
        held = self._held[block.keys] if self.knows(block.keys) else self._place(block.keys)
        if held.block is not None:
            self._bytes -= held.block.rows.nbytes
        held.block = block
        self._bytes += block.rows.nbytes
        self._held.move_to_end(block.keys)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._held)))

    def _place(self, keys: tuple[ClientKey, ...]) -> _Held:
        if keys in self._held:
            self._drop(keys)
        for key in keys:
            self.forget(key)
        held = self._held[keys] = _Held(None)
        self._bytes += CLIENT_BYTES * len(keys)
        self._of.update((key, (held, at)) for at, key in enumerate(keys))
        return held

    def _drop(self, keys: tuple[ClientKey, ...]) -> None:
        held = self._held.pop(keys)
        self._bytes -= CLIENT_BYTES * len(keys)
        if held.block is not None:
            self._bytes -= held.block.rows.nbytes
        for key in keys:
            if key not in held.gone:
                del self._of[key]
