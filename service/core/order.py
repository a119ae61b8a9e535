"""Where a request stands after the client's last ones: next in line, a retry, or out of order."""

from __future__ import annotations

import struct
from hashlib import blake2b

import numpy as np

from service.core.errors import OrderConflict
from service.core.record import ENTRY, NO_KEY, RING, Record
from service.core.requests import PredictRequest
from service.core.types import FloatArray, GapPolicy

_SHAPE = struct.Struct("<QQ?")  # of a digest's content: observations, values of each, whether with times

_MINUS_ZERO = np.float32(-0.0).tobytes()  # found where there is none, too: across two numbers


def digest_of(request: PredictRequest) -> bytes:
    """8 bytes over the parsed content (values, times, gap policy): a retry over any protocol has the same."""
    n, width = request.observations.shape
    return content_digest(n, width, plain_bytes(request.observations), request.times, request.gap)


def plain_bytes(observations: FloatArray) -> bytes:
    """Observations as they are digested: -0.0 is 0.0."""
    plain = observations.tobytes()
    return (observations + np.float32(0)).tobytes() if _MINUS_ZERO in plain else plain


def content_digest(
    n: int, width: int, values: bytes, times: tuple[float, ...] | None = None, gap: GapPolicy | None = None
) -> bytes:
    """`digest_of` the parts of a request: `n` observations of `width` values, as `plain_bytes` has them."""
    parts = [_SHAPE.pack(n, width, times is not None), values]
    if times is not None:
        parts.append(np.asarray(times, "<f8").tobytes())
    if gap is not None:
        parts.append(gap.encode())
    return blake2b(b"".join(parts), digest_size=8).digest()


def plain_digests(width: int, values: bytes) -> bytes:
    """The digests of requests of one observation each, without times and gap policy: 8 bytes for each."""
    shape, size = _SHAPE.pack(1, width, False), 4 * width
    return b"".join(
        [blake2b(shape + values[at : at + size], digest_size=8).digest() for at in range(0, len(values), size)]
    )


def key_hash(request: PredictRequest) -> bytes:
    """8 bytes for the request's idempotency key, zeros for none."""
    if request.idempotency_key is None:
        return NO_KEY
    return hash_of(request.idempotency_key)


def hash_of(idempotency_key: str) -> bytes:
    """8 bytes for an idempotency key."""
    return blake2b(idempotency_key.encode(), digest_size=8, person=b"key").digest()


def remember(ring: bytes, key: bytes, digest: bytes, first: int, last: int) -> bytes:
    """The ring with one more request, the oldest dropped beyond 32."""
    return ring[-(RING - 1) * ENTRY.size :] + ENTRY.pack(key, digest, first, last)


def is_retry(record: Record, request: PredictRequest, digest: bytes) -> bool:
    """True: the last request again. False: next in line. OrderConflict, naming expected_step, for all else.

    Only a request that carries a key, a step or times can be told from a new one with the same values.
    """
    expected = record.step + 1
    entries = list(ENTRY.iter_unpack(record.ring))
    newest = entries[-1] if entries and record.last is not None else None
    key = key_hash(request)
    if key != NO_KEY:
        known = next((entry for entry in reversed(entries) if entry[0] == key), None)
        if known is not None:
            if known[1] != digest or request.step not in (None, known[2]):
                detail = f"the Idempotency-Key was used for another request (steps {known[2]} to {known[3]})"
                raise OrderConflict("key_conflict", detail, expected)
            if known == newest:
                return True
            raise _absorbed(known, expected)
    if request.step is not None:
        return _is_retry_by_step(record, request.step, digest, entries, newest)
    if request.times is not None and record.last_time >= request.times[-1]:
        if newest is not None and newest[1] == digest and record.last_time == request.times[-1]:
            return True
        known = next((entry for entry in reversed(entries) if entry[1] == digest), None)
        if known is not None:
            raise _absorbed(known, expected)
    return False


def _is_retry_by_step(
    record: Record,
    step: int,
    digest: bytes,
    entries: list[tuple[bytes, bytes, int, int]],
    newest: tuple[bytes, bytes, int, int] | None,
) -> bool:
    expected = record.step + 1
    if step == expected:
        return False
    if newest is not None and newest[2] == step and newest[1] == digest:
        return True
    known = next((entry for entry in entries if entry[2] == step and entry[1] == digest), None)
    if known is not None:
        raise _absorbed(known, expected)
    if step > expected:
        detail = f"step {step} is ahead: the next is {expected}; send what lies between first"
    elif newest is not None and newest[2] == step:
        detail = f"step {step} was absorbed with other values; the next is {expected}"
    else:
        detail = f"step {step} is behind: the next is {expected}"
    raise OrderConflict("step_conflict", detail, expected)


def _absorbed(entry: tuple[bytes, bytes, int, int], expected: int) -> OrderConflict:
    first, last = entry[2], entry[3]
    which = f"step {first}" if first == last else f"steps {first} to {last}"
    detail = f"this request was absorbed before as {which}; only the last answer is kept"
    return OrderConflict("already_absorbed", detail, expected, step=last)
