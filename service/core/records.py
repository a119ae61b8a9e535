"""Client records in a store: bytes outside, records inside, what can't be read set aside, what expired buried."""

from __future__ import annotations

import logging
import secrets
import time
from random import Random

from service.core import quarantine, tombstones
from service.core.errors import RecordCorrupt
from service.core.ports import Clock, StateStore, Stored
from service.core.record import Record, decode, encode
from service.core.tombstones import Tombstone, stone_key, tombstone_of
from service.core.types import ClientKey, ModelSpec, of_tuple

logger = logging.getLogger(__name__)

CORRUPT = "corrupt"

_stored = of_tuple(Stored)


class Records:
    """Loads, saves, deletes and buries the records of clients. Raises what the store raises."""

    def __init__(self, store: StateStore, clock: Clock = time.time) -> None:
        self._store = store
        self._clock = clock
        self._random = Random(secrets.randbits(256))  # nonces need to be unlike, not secret: no system call for each

    def load(self, key: ClientKey, spec: ModelSpec) -> tuple[Stored | None, Record | str | None]:
        """What is stored, and the record in it: None if there is none, "corrupt" if it can't be used under `spec`."""
        stored = self._store.load(key)
        return (None, None) if stored is None else (stored, self.read(key, stored, spec))

    def find(self, key: ClientKey) -> Stored | None:
        """What is stored, as it is."""
        return self._store.load(key)

    def read(self, key: ClientKey, stored: Stored, spec: ModelSpec) -> Record | str:
        """The record in what is stored; "corrupt" if it can't be used under `spec`."""
        try:
            record = decode(key, stored.blob)
            _check_fits(record, spec)
            return record
        except RecordCorrupt as exc:
            self._set_aside(key, stored, exc)
            return CORRUPT

    def save(self, key: ClientKey, stored: Stored | None, record: Record) -> bool:
        """Replace what was `stored` by `record`; False if another writer did so first."""
        return self.put(key, stored, encode(key, record)) is not None

    def put(self, key: ClientKey, stored: Stored | None, blob: bytes) -> Stored | None:
        """`save`, of a record in bytes: what is stored now, None if another writer was first."""
        now = _stored((self._nonce(), blob))
        saved = self._store.save(key, None if stored is None else stored.nonce, now.nonce, blob)
        return now if saved else None

    def delete(self, key: ClientKey) -> bool:
        """Delete the client's record alone; True if it was there."""
        return self._store.delete(key)

    def clear(self, key: ClientKey) -> bool:
        """Forget what is left of the client beside its record; True if it had a tombstone."""
        self._store.delete(quarantine.place(key))
        return self._store.delete(stone_key(key))

    # -- clients that expired -----------------------------------------------------------------------------------

    def tombstone(self, key: ClientKey) -> Tombstone | None:
        """What is left of an expired client without a record; None if there is nothing that reads."""
        stored = self._store.load(stone_key(key))
        if stored is None:
            return None
        try:
            return tombstones.decode(stone_key(key), stored.blob)
        except RecordCorrupt as exc:
            logger.error("tombstone ignored", extra={"model": key.model, "client": key.client, "why": exc.detail})
            return None

    def bury(self, key: ClientKey, nonce: bytes, record: Record) -> bool:
        """Replace `record`, read with `nonce`, by its tombstone; False if it was written or deleted meanwhile.

        The tombstone comes first: whoever finds no record finds it. It is taken back if the record has moved on, but
        only by whoever laid it: two that bury the same record at once must not take each other's away. Broken off at
        any point, it leaves a tombstone beside the record, which means nothing, or the record buried.
        """
        place, laid = stone_key(key), self._nonce()
        before = self._store.load(place)
        found = self._store.load(key)
        if found is None or found.nonce != nonce:  # in this order: no tombstone of a later record is ever replaced
            return False
        again = before is not None and _is_of(before, place, nonce)
        stone = tombstones.encode(place, tombstone_of(record, nonce, self._clock()))
        if not self._store.save(place, None if before is None else before.nonce, laid, stone):
            return False  # another is at it
        if self._store.delete(key, nonce):
            return True
        if not again:
            self._store.delete(place, laid)
        return False

    # -- parts --------------------------------------------------------------------------------------------------

    def _set_aside(self, key: ClientKey, stored: Stored, why: RecordCorrupt) -> None:
        """Keep an unreadable record for whoever wants to know, once."""
        place = quarantine.place(key)
        before = self._store.load(place)
        if before is None or before.nonce != stored.nonce:
            logger.error("record set aside", extra={"model": key.model, "client": key.client, "why": why.detail})
            old, blob = None if before is None else before.nonce, quarantine.wrap(place, stored.blob, self._clock())
            self._store.save(place, old, stored.nonce, blob)

    def _nonce(self) -> bytes:
        return self._random.getrandbits(64).to_bytes(8)


def _is_of(stored: Stored, place: ClientKey, nonce: bytes) -> bool:
    """Whether a tombstone was laid for the record with this nonce."""
    try:
        return tombstones.decode(place, stored.blob).of == nonce
    except RecordCorrupt:
        return False


def _check_fits(record: Record, spec: ModelSpec) -> None:
    """RecordCorrupt if the record is of a model of the same name with other features or targets, or its state is none
    of its weights': one may have been imported before they were served here."""
    track = record.tracks[0]
    here = record.context.shape[1], len(track.y)
    if here != (len(spec.features), len(spec.targets)):
        raise RecordCorrupt(f"the record is of a model with {here[0]} features and {here[1]} targets")
    if track.fingerprint == spec.fingerprint and track.state.size != spec.initial_state.size:
        raise RecordCorrupt(f"its state has {track.state.size} values, its weights make {spec.initial_state.size}")
