"""A client's record as bytes: a fixed header, then arrays; never pickle.

The checksum covers the client's key as well, so that a record found under another client's key does not read.

Layout, little-endian: HEADER, label, then for each track its fingerprint, state, last y and paired error sums,
then the context, the ring of requests, the last answer's previous prediction and rows of y, the live error sums.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from service.core.errors import RecordCorrupt
from service.core.types import ClientKey, FloatArray, Status

MAGIC = b"RCV\x01"  # the last byte is the format version
STATUSES: tuple[Status, ...] = ("started", "carried", "restarted", "rebuilt")
REASONS: tuple[str | None, ...] = (None, "gap", "expired", "corrupt", "model_updated", "label_gone")
RING = 32  # requests remembered
PAIRED_SUMS = 4  # float64 per track: what a shadow's comparison adds up
LIVE_SUMS = 4  # float64 per target: absolute, squared, naive squared error, covered

# magic, checksum | generation, step, behind, scored, last_time, created, touched, live weight
# | label bytes, tracks, S, F, K, W, context rows, ring entries
# | last answer: present, status, reason, filled, behind, version, rows, W, last_seen
HEADER = struct.Struct("<4s8s QQQQdddd BBHHHHHH ?BBIQIIHd")
ENTRY = struct.Struct("<8s8sQQ")  # a remembered request: key hash, digest, first and last step
NO_KEY = bytes(8)


@dataclass(slots=True)
class Track:
    """A state and the weights it belongs to. The first track of a record is served, a second one is a shadow.

    ``state`` (S,) float32, ``y`` (K, W) float32 the prediction standing for step + 1; `sums` are four numbers that
    a shadow's comparison with the served track adds up.
    """

    fingerprint: str
    state: FloatArray
    y: FloatArray
    sums: tuple[float, ...] = (0.0,) * PAIRED_SUMS


@dataclass(slots=True)
class LastAnswer:
    """What the last request was answered, kept so that a retry gets the same.

    ``y`` (n, K, W) float32, ``predicted`` (K,) float32: the point forecast its first observation was scored
    against, NaN if none. `behind` and `last_seen` as the answer's state said them.
    """

    status: Status
    reason: str | None
    filled: int
    behind: int
    version: int
    last_seen: float
    predicted: FloatArray
    y: FloatArray


@dataclass(slots=True)
class LiveErrors:
    """Live errors, exponentially weighted: `scored` observations in all, `weight` of those still remembered.

    `sums` holds four for each target in turn: absolute, squared and naive squared error, covered by the interval.
    """

    scored: int
    weight: float
    sums: tuple[float, ...]


@dataclass(slots=True)
class Record:
    """Everything kept for one client. `behind` counts the observations behind the served state.

    ``context`` (c, F) float32, oldest first, c <= C; a NaN row is a missing step that was filled. `ring` holds
    up to 32 packed ENTRYs, newest last. Times are epoch seconds, `last_time` NaN if unknown.
    """

    label: str
    generation: int
    step: int
    behind: int
    last_time: float
    created: float
    touched: float
    tracks: tuple[Track, ...]
    context: FloatArray
    live: LiveErrors
    ring: bytes = b""
    last: LastAnswer | None = None


def _checksum(key: ClientKey, body: bytes) -> bytes:
    digest = blake2b("\0".join(key).encode(), digest_size=8)
    digest.update(body)
    return digest.digest()


def encode(key: ClientKey, record: Record) -> bytes:
    """The record as bytes that only `decode` with the same key reads."""
    served, last = record.tracks[0], record.last
    label = record.label.encode()
    targets, width = served.y.shape
    parts = [label]
    for track in record.tracks:
        parts += (
            bytes.fromhex(track.fingerprint),
            track.state.tobytes(),
            track.y.tobytes(),
            struct.pack("<4d", *track.sums),
        )
    parts += (record.context.tobytes(), record.ring)
    if last is None:
        answer = (False, 0, 0, 0, 0, 0, 0, 0, 0.0)
    else:
        status, reason = STATUSES.index(last.status), REASONS.index(last.reason)
        rows, _, last_width = last.y.shape
        answer = (True, status, reason, last.filled, last.behind, last.version, rows, last_width, last.last_seen)
        parts += (last.predicted.tobytes(), last.y.tobytes())
    parts.append(struct.pack(f"<{len(record.live.sums)}d", *record.live.sums))
    header = HEADER.pack(
        MAGIC,
        bytes(8),
        record.generation,
        record.step,
        record.behind,
        record.live.scored,
        record.last_time,
        record.created,
        record.touched,
        record.live.weight,
        len(label),
        len(record.tracks),
        served.state.size,
        record.context.shape[1],
        targets,
        width,
        len(record.context),
        len(record.ring) // ENTRY.size,
        *answer,
    )
    body = b"".join((header[12:], *parts))
    return b"".join((MAGIC, _checksum(key, body), body))


class _Reader:
    """Takes arrays off a blob in order; RecordCorrupt instead of reading past the end."""

    def __init__(self, blob: bytes, at: int) -> None:
        self.blob, self.at = blob, at

    def bytes(self, size: int) -> bytes:
        piece = self.blob[self.at : self.at + size]
        if len(piece) != size:
            raise RecordCorrupt("the record ends too early")
        self.at += size
        return piece

    def floats(self, *shape: int) -> FloatArray:
        size = math.prod(shape)
        at, self.at = self.at, self.at + 4 * size
        if self.at > len(self.blob):
            raise RecordCorrupt("the record ends too early")
        return np.frombuffer(self.blob, np.float32, size, at).reshape(shape)

    def doubles(self, size: int) -> tuple[float, ...]:
        return struct.unpack(f"<{size}d", self.bytes(8 * size))


def decode(key: ClientKey, blob: bytes) -> Record:
    """The record in `blob`; its arrays are read-only views. RecordCorrupt if one byte is not as `encode` wrote it."""
    if len(blob) < HEADER.size:
        raise RecordCorrupt("the record is shorter than its header")
    if blob[:4] != MAGIC:
        raise RecordCorrupt("the record has another format")
    if blob[4:12] != _checksum(key, blob[12:]):
        raise RecordCorrupt("the record's checksum does not hold")
    head = HEADER.unpack_from(blob)
    _, _, generation, step, behind, scored, last_time, created, touched, weight = head[:10]
    label_size, n_tracks, state_size, n_features, n_targets, width, n_context, n_ring = head[10:18]
    answered, status, reason, filled, last_behind, version, rows, last_width, last_seen = head[18:]
    if n_tracks < 1 or status >= len(STATUSES) or reason >= len(REASONS):
        raise RecordCorrupt("the record's header does not hold")
    reader = _Reader(blob, HEADER.size)
    label = reader.bytes(label_size).decode("utf-8", "replace")
    tracks = tuple(
        Track(
            reader.bytes(32).hex(),
            reader.floats(state_size),
            reader.floats(n_targets, width),
            reader.doubles(PAIRED_SUMS),
        )
        for _ in range(n_tracks)
    )
    context = reader.floats(n_context, n_features)
    ring = reader.bytes(n_ring * ENTRY.size)
    last = None
    if answered:
        predicted = reader.floats(n_targets)
        y = reader.floats(rows, n_targets, last_width)
        last = LastAnswer(STATUSES[status], REASONS[reason], filled, last_behind, version, last_seen, predicted, y)
    live = LiveErrors(scored, weight, reader.doubles(n_targets * LIVE_SUMS))
    if reader.at != len(blob):
        raise RecordCorrupt("the record has bytes after its end")
    return Record(
        label, generation, step, behind, last_time, created, touched, tracks, context, live, ring=ring, last=last
    )
