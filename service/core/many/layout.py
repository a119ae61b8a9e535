"""Where the parts of a record stand in its bytes, so that records of one shape can be the rows of one array.

The layout is `core.record`'s; HEAD names the fields of its header. Only records that the common step may meet have a
`Layout`: format 2, one track, an answer remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.many.asked import Places
from service.core.record import ENTRY, FINGERPRINT_SIZE, HEADER, LIVE_SUMS, MAGIC, PAIRED, RING

Bytes = NDArray[np.uint8]
Head = NDArray[np.void]

HEAD = np.dtype(
    [
        ("magic", "S4"), ("crc", "<u4"), ("key_crc", "<u4"),
        ("generation", "<u8"), ("step", "<u8"), ("behind", "<u8"), ("scored", "<u8"),
        ("last_time", "<f8"), ("created", "<f8"), ("touched", "<f8"), ("weight", "<f8"),
        ("label_size", "u1"), ("tracks", "u1"), ("state", "<u4"), ("features", "<u2"), ("targets", "<u2"),
        ("width", "<u2"), ("context", "<u2"), ("ring", "<u2"),
        ("answered", "u1"), ("status", "u1"), ("reason", "u1"), ("filled", "<u4"), ("last_behind", "<u8"),
        ("version", "<u4"), ("told", "<u4"), ("told_width", "<u2"), ("last_seen", "<f8"), ("bounded", "u1"),
        ("level", "<f8"),
    ]
)  # fmt: skip
_SHAPE = (  # the fields that say how long the parts are
    "magic", "label_size", "tracks", "state", "features", "targets", "width", "context", "ring", "answered", "told",
    "told_width", "bounded",
)  # fmt: skip
_FIELDS: Mapping[str, Any] = HEAD.fields or {}
_SHAPE_AT = np.concatenate([np.arange(at, at + kind.itemsize) for kind, at in (_FIELDS[name][:2] for name in _SHAPE)])


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a record with one track and a remembered answer, and the offsets of its parts."""

    label_size: int
    state: int
    features: int
    targets: int
    width: int
    context: int
    ring: int
    told: int
    bounded: bool
    state_at: int = field(init=False)
    y_at: int = field(init=False)
    sums_at: int = field(init=False)
    stretch_at: int = field(init=False)
    context_at: int = field(init=False)
    ring_at: int = field(init=False)
    predicted_at: int = field(init=False)
    anomaly_at: int = field(init=False)
    told_at: int = field(init=False)
    interval_at: int = field(init=False)
    live_at: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        at = HEADER.size + self.label_size + FINGERPRINT_SIZE
        y_size = 4 * self.targets * self.width
        parts = {
            "state_at": 4 * self.state,
            "y_at": y_size,
            "sums_at": PAIRED.size,
            "stretch_at": 8 * self.targets,
            "context_at": 4 * self.context * self.features,
            "ring_at": self.ring * ENTRY.size,
            "predicted_at": 4 * self.targets,
            "anomaly_at": 4 * self.targets,
            "told_at": self.told * y_size,
            "interval_at": 8 * self.told * self.targets if self.bounded else 0,
            "live_at": 8 * self.targets * LIVE_SUMS,
            "size": 0,
        }
        for name, size in parts.items():
            object.__setattr__(self, name, at)
            at += size

    @staticmethod
    def of(head: Head, size: int) -> Layout | None:
        """The layout of a record of `size` bytes whose header is ``head`` (a scalar of HEAD); None if it has none."""
        usual = head["magic"] == MAGIC and head["tracks"] == 1 and head["answered"] == 1 and head["told"] > 0
        if not usual or head["width"] != head["told_width"] or head["bounded"] > 1:
            return None
        label, state, features, targets, width, context, ring, told = (
            int(head[name])
            for name in ("label_size", "state", "features", "targets", "width", "context", "ring", "told")
        )
        layout = Layout(label, state, features, targets, width, context, ring, told, bool(head["bounded"]))
        return layout if layout.size == size else None

    def after(self, context_rows: int, *, bounded: bool) -> Layout:
        """That of the record one step later, whose context holds `context_rows` at most."""
        context, ring = min(self.context + 1, context_rows), min(self.ring + 1, RING)
        return Layout(self.label_size, self.state, self.features, self.targets, self.width, context, ring, 1, bounded)


def heads(rows: Bytes) -> Head:
    """The headers of records ``rows`` (n, size): (n,) of HEAD, a copy."""
    whole: Head = np.ascontiguousarray(rows[:, : HEAD.itemsize]).view(HEAD)[:, 0]
    return whole


def part(rows: Bytes, at: int, end: int, kind: str) -> NDArray[Any]:
    """Bytes `at` to `end` of every row as numbers of `kind`: (n, ...), a copy."""
    return np.ascontiguousarray(rows[:, at:end]).view(kind)


def alike(blobs: Sequence[bytes]) -> Iterator[tuple[Places, Bytes]]:
    """Records of one shape together: which of `blobs` they are, rising, and their bytes as rows (n, size).

    What is too short to be a record is in none.
    """
    by_size: dict[int, list[int]] = {}
    for place, blob in enumerate(blobs):
        by_size.setdefault(len(blob), []).append(place)
    for size, of_size in by_size.items():
        if size < HEADER.size:
            continue
        joined = b"".join(blobs if len(of_size) == len(blobs) else [blobs[place] for place in of_size])
        places, rows = np.array(of_size, np.intp), np.frombuffer(joined, np.uint8).reshape(-1, size)
        shapes = rows[:, _SHAPE_AT]
        if (shapes == shapes[0]).all():
            yield places, rows
            continue
        _, group = np.unique(shapes, axis=0, return_inverse=True)
        for number in range(int(group.max()) + 1):
            of_it = np.flatnonzero(group == number)
            yield places[of_it], rows[of_it]
