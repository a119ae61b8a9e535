"""Quarantine: records that could not be read, kept for whoever wants to know why, with the time of the finding."""

from __future__ import annotations

import struct

from service.core.errors import RecordCorrupt
from service.core.sealed import seal, unseal
from service.core.types import ClientKey

MAGIC = b"RCQ\x01"  # the last byte is the format version
SET_ASIDE = "~quarantine~"  # before the tenant's own name; no caller's tenant begins so
_FOUND = struct.Struct("<d")


def place(key: ClientKey) -> ClientKey:
    """Where what could not be read of a client is kept."""
    return key._replace(tenant=SET_ASIDE + key.tenant)


def wrap(place: ClientKey, unreadable: bytes, now: float) -> bytes:
    """The unreadable bytes with when they were found, for `unwrap` with the same place."""
    return seal(MAGIC, place, _FOUND.pack(now) + unreadable)


def unwrap(place: ClientKey, blob: bytes) -> tuple[float, bytes]:
    """When they were found (epoch seconds), and the unreadable bytes. RecordCorrupt if this is torn too."""
    body = unseal(MAGIC, place, blob)
    if len(body) < _FOUND.size:
        raise RecordCorrupt("it is shorter than its header")
    return _FOUND.unpack_from(body)[0], body[_FOUND.size :]
