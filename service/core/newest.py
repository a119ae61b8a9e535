"""Which record of a client was saved last, as far as the processes of one master have told each other."""

from __future__ import annotations

from collections.abc import Sequence
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from service.core.perlist import PerList
from service.core.ports import Stored
from service.core.types import ClientKey

PLACES = 1 << 18  # two megabytes, of which only what is used takes memory
NONCE_BYTES = 8


class Newest:
    """Memory that the processes forked after it was made share: a place holds the nonce that was saved last there.

    Clients are spread over the places by their hash, which is the same in all of these processes, and two may share
    one. So what it says is a hint: a record that it does not know may be the newest, and one that it knows may not be
    any more, which the store finds out as ever. Nothing is locked; a place is written and read as one word.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._memory = mmap(-1, places * NONCE_BYTES)
        self._words = np.frombuffer(self._memory, np.uint64)
        self._mask = places - 1
        self._places = PerList(self._places_of)

    def tell(self, key: ClientKey, nonce: bytes) -> None:
        """The client's record of `nonce`, 8 bytes, was saved just now."""
        at = (hash(key) & self._mask) * NONCE_BYTES
        self._memory[at : at + NONCE_BYTES] = nonce

    def knows(self, key: ClientKey, nonce: bytes) -> bool:
        """Whether that was the last to be told of."""
        at = (hash(key) & self._mask) * NONCE_BYTES
        return self._memory[at : at + NONCE_BYTES] == nonce

    def tell_many(self, keys: tuple[ClientKey, ...], nonces: Sequence[bytes]) -> None:
        """`tell` of each."""
        self._words[self._places.of(keys)] = np.frombuffer(b"".join(nonces), np.uint64)

    def knows_all(self, keys: tuple[ClientKey, ...], nonces: Sequence[bytes]) -> bool:
        """`knows` of each; two of them that share a place are not both known."""
        return bool((self._words[self._places.of(keys)] == np.frombuffer(b"".join(nonces), np.uint64)).all())

    def known(self, key: ClientKey, stored: Stored | None) -> Stored | None:
        """`stored`, if it is known."""
        return stored if stored is not None and self.knows(key, stored.nonce) else None

    def _places_of(self, keys: tuple[ClientKey, ...]) -> NDArray[np.intp]:
        return np.array([hash(key) & self._mask for key in keys], np.intp)
