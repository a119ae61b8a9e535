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
WORD = 8  # bytes of a place: those of a nonce but for two, and two that tell the client from others
_NONCE = 6
_OF_NONCE = np.uint64((1 << 8 * _NONCE) - 1)
_SHIFT = np.uint64(8 * _NONCE)


class Newest:
    """Memory that the processes forked after it was made share: a place holds which nonce was saved last, and whose.

    Clients are spread over the places by their hash, which is the same in all of these processes; of two that share one
    it knows the last. What it says is a hint: a record that it takes for old may be the newest, one that it does not
    may be old, which the store finds out as ever. Nothing is locked; a place is written as one word.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._memory = mmap(-1, places * WORD)
        self._words = np.frombuffer(self._memory, "<u8")
        self._mask = places - 1
        self._places = PerList(self._places_of)

    def tell(self, key: ClientKey, nonce: bytes) -> None:
        """The client's record of `nonce`, 8 bytes, was saved just now."""
        at, client = self._place(key)
        self._memory[at : at + WORD] = nonce[:_NONCE] + client

    def is_old(self, key: ClientKey, nonce: bytes) -> bool:
        """Whether another record of the client than that of `nonce` was told of since."""
        at, client = self._place(key)
        seen = self._memory[at : at + WORD]
        return seen[_NONCE:] == client and seen[:_NONCE] != nonce[:_NONCE]

    def tell_many(self, keys: tuple[ClientKey, ...], nonces: Sequence[bytes]) -> None:
        """`tell` of each."""
        places, clients = self._places.of(keys)
        self._words[places] = _numbers(nonces) | clients

    def are_old(self, keys: tuple[ClientKey, ...], nonces: Sequence[bytes]) -> NDArray[np.bool_]:
        """`is_old` of each, (n,)."""
        places, clients = self._places.of(keys)
        seen = self._words[places]
        old: NDArray[np.bool_] = (seen >> _SHIFT == clients >> _SHIFT) & (seen & _OF_NONCE != _numbers(nonces))
        return old

    def unless_old(self, key: ClientKey, stored: Stored | None) -> Stored | None:
        """`stored`, unless it is old."""
        return None if stored is None or self.is_old(key, stored.nonce) else stored

    def _place(self, key: ClientKey) -> tuple[int, bytes]:
        hashed = hash(key)
        return (hashed & self._mask) * WORD, (hashed >> 32 & 0xFFFF).to_bytes(2, "little")

    def _places_of(self, keys: tuple[ClientKey, ...]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        found = [self._place(key) for key in keys]
        places, clients = [at for at, _ in found], b"".join([client for _, client in found])
        return np.array(places, np.intp) // WORD, np.frombuffer(clients, "<u2").astype(np.uint64) << _SHIFT


def _numbers(nonces: Sequence[bytes]) -> NDArray[np.uint64]:
    """What a place holds of each."""
    return np.frombuffer(b"".join(nonces), "<u8") & _OF_NONCE
