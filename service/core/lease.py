"""A lease: of many processes over one store, at most one does the work, and not more often than it is due.

The lease is a record under a tenant of ours, taken, renewed and given back by compare-and-set. It saves work and
nothing else: what is done under it has to be right if two hold it, as two may whose clocks or pauses are out of bounds.
"""

from __future__ import annotations

import logging
import secrets
import struct
from dataclasses import dataclass

from service.core.errors import RecordCorrupt
from service.core.ports import Clock, StateStore
from service.core.sealed import seal, unseal
from service.core.types import ClientKey

logger = logging.getLogger(__name__)

TENANT = "~lease"  # no caller's tenant begins so
MAGIC = b"RCL\x01"  # the last byte is the format version
BODY = struct.Struct("<16sdd")  # holder, until, done
NOBODY = bytes(16)
LASTS_S = 60.0
MARGIN_S = 30.0  # how far the clocks of two machines may be apart


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds a lease, until when; when its work was last done to the end. Times are epoch seconds."""

    holder: bytes
    until: float
    done: float


def encode(key: ClientKey, held: Held) -> bytes:
    """A lease as bytes that only `decode` with the same key reads."""
    return seal(MAGIC, key, BODY.pack(held.holder, held.until, held.done))


def decode(key: ClientKey, blob: bytes) -> Held:
    """The lease in `blob`. RecordCorrupt if it is none, or one byte is not as it was written."""
    body = unseal(MAGIC, key, blob)
    if len(body) != BODY.size:
        raise RecordCorrupt("it is not of a lease's length")
    return Held(*BODY.unpack(body))


class Lease:
    """One process's hand on the lease called `name`. For one thread. Raises what the store raises."""

    def __init__(self, store: StateStore, name: str, clock: Clock) -> None:
        self._store = store
        self._key = ClientKey(TENANT, name, name)
        self._clock = clock
        self._holder = secrets.token_bytes(16)
        self._nonce: bytes | None = None  # of the record by which we hold it
        self._held = Held(NOBODY, 0.0, 0.0)

    @property
    def held(self) -> bool:
        """Whether this process holds it, as far as it knows."""
        return self._nonce is not None

    def take(self, every_s: float) -> bool:
        """Take the lease if nobody holds it and its work was not done in the last `every_s`; True if it is ours."""
        stored = self._store.load(self._key)
        found = Held(NOBODY, 0.0, 0.0)
        if stored is not None:
            try:
                found = decode(self._key, stored.blob)
            except RecordCorrupt as exc:
                logger.error("lease taken over", extra={"lease": self._key.client, "why": exc.detail})
        if self._is_taken(found) or self._is_done(found, every_s):
            return False
        return self._write(None if stored is None else stored.nonce, found.done)

    def renew(self) -> bool:
        """Hold it for another minute, once a third of this one has gone; False if another has taken it over."""
        left = self._held.until - self._clock()
        if LASTS_S * 2 / 3 < left <= LASTS_S:
            return True
        return self._nonce is not None and self._write(self._nonce, self._held.done)

    def give_back(self, *, done: bool) -> None:
        """Let others have it, if it is still ours; `done`: the work is finished and not due again for a while."""
        old, self._nonce = self._nonce, None
        if old is not None:
            free = Held(NOBODY, 0.0, self._clock() if done else self._held.done)
            self._store.save(self._key, old, secrets.token_bytes(8), encode(self._key, free))

    def _is_taken(self, found: Held) -> bool:
        left = found.until - self._clock()
        # no honest lease lasts longer than this: one from a clock that is far ahead counts for nothing
        return found.holder not in (NOBODY, self._holder) and -MARGIN_S <= left <= LASTS_S + MARGIN_S

    def _is_done(self, found: Held, every_s: float) -> bool:
        return -MARGIN_S <= self._clock() - found.done < every_s

    def _write(self, old: bytes | None, done: float) -> bool:
        held, nonce = Held(self._holder, self._clock() + LASTS_S, done), secrets.token_bytes(8)
        saved = self._store.save(self._key, old, nonce, encode(self._key, held))
        self._nonce, self._held = (nonce, held) if saved else (None, held)
        return saved
