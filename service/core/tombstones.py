"""Tombstones: what is left of a client that expired, so that its number goes on if it comes back.

A tombstone is a small record of its own, kept under a tenant of ours beside the client's (`stone_key`). A client with
a record is alive, whatever tombstone there may be.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from service.core.errors import RecordCorrupt
from service.core.record import Record
from service.core.scoring import no_errors
from service.core.sealed import seal, unseal
from service.core.types import ClientKey, ModelSpec

MAGIC = b"RCT\x01"  # the last byte is the format version
BURIED = "~expired~"  # before the tenant's own name; no caller's tenant begins so
BODY = struct.Struct("<QQdddd8s")  # generation, step, last_time, created, touched, buried, of; then the label


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Where an expired client stood; the fields are its record's. Times are epoch seconds.

    `buried` is when its record was deleted, `of` that record's nonce.
    """

    label: str
    generation: int
    step: int
    last_time: float
    created: float
    touched: float
    buried: float
    of: bytes


def stone_key(key: ClientKey) -> ClientKey:
    """Where a client's tombstone is kept."""
    return key._replace(tenant=BURIED + key.tenant)


def tombstone_of(record: Record, nonce: bytes, now: float) -> Tombstone:
    """The tombstone for `record`, stored with `nonce`, if it is deleted now."""
    times = record.last_time, record.created, record.touched
    return Tombstone(record.label, record.generation, record.step, *times, buried=now, of=nonce)


def encode(place: ClientKey, stone: Tombstone) -> bytes:
    """The tombstone as bytes that only `decode` with the same `place` reads."""
    times = stone.last_time, stone.created, stone.touched, stone.buried
    return seal(MAGIC, place, BODY.pack(stone.generation, stone.step, *times, stone.of) + stone.label.encode())


def decode(place: ClientKey, blob: bytes) -> Tombstone:
    """The tombstone in `blob`, kept at `place`. RecordCorrupt if it is none, or one byte is not as it was written."""
    body = unseal(MAGIC, place, blob)
    if len(body) < BODY.size:
        raise RecordCorrupt("it is shorter than a tombstone")
    generation, step, last_time, created, touched, buried, of = BODY.unpack_from(body)
    label = body[BODY.size :].decode("utf-8", "replace")
    return Tombstone(label, generation, step, last_time, created, touched, buried, of)


def as_record(stone: Tombstone, spec: ModelSpec) -> Record:
    """The record of a client of whom only this is known: no state, no context, no request remembered."""
    return Record(
        label=stone.label,
        generation=stone.generation,
        step=stone.step,
        behind=0,
        last_time=stone.last_time,
        created=stone.created,
        touched=stone.touched,
        tracks=(),
        context=np.empty((0, len(spec.features)), np.float32),
        live=no_errors(len(spec.targets)),
    )
