"""A client's record as bytes: a fixed header, then arrays; never pickle.

The checksum covers the client's key as well, so that a record found under another client's key does not read.

Layout, little-endian: HEADER, label, then for each track its fingerprint, state, last y, paired error sums and
stretches (before those of a second track its own S and W, as it may be another network's), then the context, the ring
of requests, the last answer's previous prediction, its anomaly scores and its rows of y, the live error sums. Format 1,
which is still read, has no stretches, no anomaly scores and another checksum.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from service.core import sealed
from service.core.errors import RecordCorrupt
from service.core.sealed import SEAL_SIZE, quick_checksum
from service.core.types import ClientKey, FloatArray, Status

MAGIC = b"RCV\x02"  # the last byte is the format version
MAGIC_1 = b"RCV\x01"
STATUSES: tuple[Status, ...] = ("started", "carried", "restarted", "rebuilt")
REASONS: tuple[str | None, ...] = (None, "gap", "expired", "corrupt", "model_updated", "label_gone", "promoted")
RING = 32  # requests remembered
PAIRED_SUMS = 4  # float64 per track: what a shadow's comparison adds up
NO_SUMS = (0.0,) * PAIRED_SUMS
LIVE_SUMS = 4  # float64 per target: absolute, squared, naive squared error, covered

# magic, checksum | generation, step, behind, scored, last_time, created, touched, live weight
# | label bytes, tracks, S, F, K, W, context rows, ring entries
# | last answer: present, status, reason, filled, behind, version, rows, W, last_seen, has intervals, their level
HEADER = struct.Struct("<4s8s QQQQdddd BBIHHHHH ?BBIQIIHd?d")
_TOUCHED, _TOUCHED_AT = struct.Struct("<d"), struct.calcsize("<4s8sQQQQdd")
ENTRY = struct.Struct("<8s8sQQ")  # a remembered request: key hash, digest, first and last step
NO_KEY = bytes(8)
PAIRED = struct.Struct(f"<{PAIRED_SUMS}d")
SIZES = struct.Struct("<IH")  # S and W of a second track; those of the first are in the header
FINGERPRINT_SIZE = 32  # bytes of a sha256


@dataclass(slots=True)
class Track:
    """A state and the weights it belongs to. The first track of a record is served, a second one is a shadow.

    ``state`` (S,) float32, ``y`` (K, W) float32 the prediction standing for step + 1; `sums` are four numbers that
    a shadow's comparison with the served track adds up (`service.core.shadow`), zeros for the served one. `stretch`:
    for each target the logarithm of the factor by which its interval is wider than these weights say
    (`scoring.STRETCH`); empty for zeros.
    """

    fingerprint: str
    state: FloatArray
    y: FloatArray
    sums: tuple[float, ...] = NO_SUMS
    stretch: tuple[float, ...] = ()


@dataclass(slots=True)
class LastAnswer:
    """What the last request was answered, kept so that a retry gets the same.

    ``y`` (n, K, W) float32, ``predicted`` (K,) float32: the point forecast its first observation was scored
    against, NaN if none. ``interval`` (n, K, 2) float32 or None, at `level`. `behind` and `last_seen` as the
    answer's state said them. ``anomaly`` (K,) float32: the first observation's scores, NaN where there is none; None
    for NaN throughout.
    """

    status: Status
    reason: str | None
    filled: int
    behind: int
    version: int
    last_seen: float
    predicted: FloatArray
    y: FloatArray
    interval: FloatArray | None = None
    level: float = 0.0
    anomaly: FloatArray | None = None


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

    ``context`` (c, F) float32, oldest first, c <= the longest C of the versions loaded; a NaN row is a missing step
    that was filled. `ring` holds up to 32 packed ENTRYs, newest last. Times are epoch seconds, `last_time` NaN if
    unknown.
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


def encode(key: ClientKey, record: Record) -> bytes:
    """The record as bytes that only `decode` with the same key reads."""
    served, last = record.tracks[0], record.last
    label = record.label.encode()
    targets, width = served.y.shape
    per_target = f"<{targets}d"
    parts = [label]
    for i, track in enumerate(record.tracks):
        if i:
            parts.append(SIZES.pack(track.state.size, track.y.shape[1]))
        parts += (
            bytes.fromhex(track.fingerprint),
            track.state.tobytes(),
            track.y.tobytes(),
            PAIRED.pack(*track.sums),
            struct.pack(per_target, *track.stretch) if track.stretch else bytes(8 * targets),
        )
    parts += (record.context.tobytes(), record.ring)
    if last is None:
        answer: tuple[float, ...] = (False, 0, 0, 0, 0, 0, 0, 0, 0.0, False, 0.0)
    else:
        status, reason = STATUSES.index(last.status), REASONS.index(last.reason)
        rows, _, last_width = last.y.shape
        answer = (True, status, reason, last.filled, last.behind, last.version, rows, last_width, last.last_seen)
        answer += (last.interval is not None, last.level)
        anomaly = np.full(targets, np.nan, np.float32) if last.anomaly is None else last.anomaly
        parts += (last.predicted.tobytes(), anomaly.tobytes(), last.y.tobytes())
        if last.interval is not None:
            parts.append(last.interval.tobytes())
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
    body = b"".join((header[SEAL_SIZE:], *parts))
    return b"".join((MAGIC, quick_checksum(key, body), body))


def touched_of(blob: bytes) -> float:
    """When the record in `blob` was last written, unchecked: a quick look at thousands. NaN if it can't be a record."""
    if len(blob) < HEADER.size or blob[:4] not in (MAGIC, MAGIC_1):
        return math.nan
    touched: float = _TOUCHED.unpack_from(blob, _TOUCHED_AT)[0]
    return touched


def decode(key: ClientKey, blob: bytes) -> Record:
    """The record in `blob`; its arrays are read-only views. RecordCorrupt if one byte is not as `encode` wrote it."""
    if len(blob) < HEADER.size:
        raise RecordCorrupt("the record is shorter than its header")
    if blob[:4] not in (MAGIC, MAGIC_1):
        raise RecordCorrupt("the record has another format")
    marked = blob[:4] == MAGIC  # whether it has stretches and anomaly scores
    checksum = quick_checksum if marked else sealed.checksum
    if blob[4:SEAL_SIZE] != checksum(key, memoryview(blob)[SEAL_SIZE:]):
        raise RecordCorrupt("the record's checksum does not hold")
    head = HEADER.unpack_from(blob)
    _, _, generation, step, behind, scored, last_time, created, touched, weight = head[:10]
    label_size, n_tracks, state_size, n_features, n_targets, width, n_context, n_ring = head[10:18]
    answered, status, reason, filled, last_behind, version, rows, last_width, last_seen, bounded, level = head[18:]
    answer_size = 4 * n_targets * (1 + marked + rows * (last_width + 2 * bounded)) if answered else 0
    per_target, stretch_size = f"<{n_targets * marked}d", 8 * n_targets * marked
    track_size = FINGERPRINT_SIZE + 4 * (state_size + n_targets * width) + PAIRED.size + stretch_size
    live_size = 8 * n_targets * LIVE_SUMS
    sizes = [(state_size, width)]
    if n_tracks == 2:
        if len(blob) < (at := HEADER.size + label_size + track_size) + SIZES.size:
            raise RecordCorrupt("the record ends before its second track")
        sizes.append(SIZES.unpack_from(blob, at))
        track_size += SIZES.size + FINGERPRINT_SIZE + 4 * (sizes[1][0] + n_targets * sizes[1][1]) + PAIRED.size
        track_size += stretch_size
    size = label_size + track_size + 4 * n_context * n_features + n_ring * ENTRY.size
    if len(blob) != HEADER.size + size + answer_size + live_size:
        raise RecordCorrupt("the record's length is not what its header says")
    if not 1 <= n_tracks <= 2 or status >= len(STATUSES) or reason >= len(REASONS):
        raise RecordCorrupt("the record's header does not hold")
    at = HEADER.size + label_size
    try:
        label = blob[HEADER.size : at].decode()
    except UnicodeDecodeError as exc:
        raise RecordCorrupt("the record's label is no text") from exc
    tracks = []
    for i, (state_size, width) in enumerate(sizes):
        at += SIZES.size if i else 0
        fingerprint = blob[at : at + FINGERPRINT_SIZE].hex()
        state = np.frombuffer(blob, np.float32, state_size, at := at + FINGERPRINT_SIZE)
        y = np.frombuffer(blob, np.float32, n_targets * width, at := at + 4 * state_size).reshape(n_targets, width)
        sums = PAIRED.unpack_from(blob, at := at + 4 * n_targets * width)
        stretch = struct.unpack_from(per_target, blob, at := at + PAIRED.size)
        tracks.append(Track(fingerprint, state, y, sums, stretch))
        at += stretch_size
    context = np.frombuffer(blob, np.float32, n_context * n_features, at).reshape(n_context, n_features)
    ring = blob[(at := at + 4 * n_context * n_features) : (at := at + n_ring * ENTRY.size)]
    last = None
    if answered:
        predicted = np.frombuffer(blob, np.float32, n_targets, at)
        anomaly = np.frombuffer(blob, np.float32, n_targets, at + 4 * n_targets) if marked else None
        begin = at + 4 * n_targets * (1 + marked)
        told = np.frombuffer(blob, np.float32, rows * n_targets * last_width, begin)
        told = told.reshape(rows, n_targets, last_width)
        interval = None
        if bounded:
            interval = np.frombuffer(blob, np.float32, rows * n_targets * 2, begin + 4 * told.size)
            interval = interval.reshape(rows, n_targets, 2)
        last = LastAnswer(
            STATUSES[status],
            REASONS[reason],
            filled,
            last_behind,
            version,
            last_seen,
            predicted,
            told,
            interval,
            level,
            anomaly,
        )
    live = LiveErrors(scored, weight, struct.unpack_from(f"<{n_targets * LIVE_SUMS}d", blob, at + answer_size))
    return Record(
        label, generation, step, behind, last_time, created, touched, tuple(tracks), context, live, ring=ring, last=last
    )
