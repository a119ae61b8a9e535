"""Client records in a store: bytes outside, records inside, what can't be read set aside."""

from __future__ import annotations

import logging
import secrets
from random import Random

from service.core.errors import RecordCorrupt
from service.core.ports import StateStore, Stored
from service.core.record import Record, decode, encode
from service.core.types import ClientKey, ModelSpec

logger = logging.getLogger(__name__)

QUARANTINE = "~quarantine"  # the tenant under which unreadable records are set aside
CORRUPT = "corrupt"


class Records:
    """Loads, saves and deletes the records of clients. Raises what the store raises."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._random = Random(secrets.randbits(256))  # nonces need to be unlike, not secret: no system call for each

    def load(self, key: ClientKey, spec: ModelSpec) -> tuple[Stored | None, Record | str | None]:
        """What is stored, and the record in it: None if there is none, "corrupt" if it can't be used under `spec`."""
        stored = self._store.load(key)
        if stored is None:
            return None, None
        try:
            record = decode(key, stored.blob)
            _check_fits(record, spec)
            return stored, record
        except RecordCorrupt as exc:
            self._set_aside(key, stored, exc)
            return stored, CORRUPT

    def save(self, key: ClientKey, stored: Stored | None, record: Record) -> bool:
        """Replace what was `stored` by `record`; False if another writer did so first."""
        old = None if stored is None else stored.nonce
        return self._store.save(key, old, self._random.getrandbits(64).to_bytes(8), encode(key, record))

    def delete(self, key: ClientKey) -> bool:
        """Forget the client, what was set aside of it included; True if it was there."""
        gone = self._store.delete(key)
        self._store.delete(_aside(key))
        return gone

    def _set_aside(self, key: ClientKey, stored: Stored, why: RecordCorrupt) -> None:
        """Keep an unreadable record for whoever wants to know, once."""
        before = self._store.load(_aside(key))
        if before is None or before.nonce != stored.nonce:
            logger.error("record set aside", extra={"model": key.model, "client": key.client, "why": why.detail})
            self._store.save(_aside(key), None if before is None else before.nonce, stored.nonce, stored.blob)


def _aside(key: ClientKey) -> ClientKey:
    return key._replace(tenant=QUARANTINE)


def _check_fits(record: Record, spec: ModelSpec) -> None:
    """RecordCorrupt if the record is of a model of the same name with other features or targets."""
    here = record.context.shape[1], len(record.tracks[0].y)
    if here != (len(spec.features), len(spec.targets)):
        raise RecordCorrupt(f"the record is of a model with {here[0]} features and {here[1]} targets")
