"""How the common step reads a record, and what it writes of the next one: as few calls as there can be.

Records of one shape differ in nothing but numbers that stand at the same places, so what is where is found out once for
each shape, from `many.layout`.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import NamedTuple

import numpy as np

from service.core.many.layout import Layout, heads
from service.core.record import ENTRY, HEADER, LIVE_SUMS, MAGIC, REASONS, STATUSES
from service.core.registry import STABLE, ServedModel

_SIZES_AT = struct.calcsize("<4s8sQQQQdddd")
_BEHIND_AT = _SIZES_AT + struct.calcsize("<BBIHHHHH?BBI")  # the last answer's; what is in between has a record's sizes
_VERSION_AT = _BEHIND_AT + struct.calcsize("<Q")
_CARRIED, _NO_REASON = STATUSES.index("carried"), REASONS.index(None)
_MOST_SHAPES = 512


class Parts(NamedTuple):
    """Where what a common step needs is in a record of one shape.

    Of its bytes: the state's place, and `numbers` to be read from `numbers_at` on: the stretches, the last row of the
    context, the points and ends of the last prediction, the live sums, which are the five slices of them. `ring` is all
    requests remembered; `context` and `requests` is what stays of both. `sizes` is what the next header says of its.
    """

    size: int
    state_at: int
    numbers_at: int
    numbers: Struct
    stretch: slice
    before: slice
    points: slice
    ends: slice
    sums: slice
    ring: slice
    context: slice
    requests: slice
    sizes: bytes


class Shapes:
    """The shapes of one model's records as `stable` serves them. `head` reads of a record what tells its shape, and
    what is behind it: the sizes, what was told last, whether with intervals, and the label with the fingerprint.

    `begin` and `end` write the next record up to its state, and from its newest request on.
    """

    def __init__(self, model: ServedModel, *, bounded: bool) -> None:
        spec = model.labelled().spec
        self._model, self._spec, self._bounded = model, spec, bounded
        targets, width = len(spec.targets), spec.columns
        self._shape = spec.initial_state.size, len(spec.features), targets, width
        self._parts: dict[tuple[bytes, bytes, bytes], Parts] = {}
        self.begins = STABLE.encode() + bytes.fromhex(spec.fingerprint)
        label = f"{len(self.begins)}s"
        self.head = Struct(f"<4s8sQQQQdddd17s14x10s8x1s8x{label}")
        self.begin = Struct(f"<QQQQdddd{_BEHIND_AT - _SIZES_AT}sQ{HEADER.size - _VERSION_AT}s{label}")
        ends = 2 * targets * bounded
        self.end = Struct(f"<8s8sQQ{2 * targets}f{4 * targets * width}s{ends}f{targets * LIVE_SUMS}d")
        self.points_at, self.anomaly_at = ENTRY.size, ENTRY.size + 4 * targets
        self.ends_at = self.anomaly_at + 4 * targets * (1 + width)
        self.told = self._header(0, 0)[_VERSION_AT:]

    def of(self, blob: bytes, sizes: bytes, told: bytes, bounded: bytes) -> Parts | None:
        """The parts of the record `blob`, whose `head` says the rest; None if the common step can't go on from it."""
        parts = self._parts.get((sizes, told, bounded))
        if parts is None and (parts := self._look(blob)) is not None:
            if len(self._parts) >= _MOST_SHAPES:
                self._parts.clear()
            self._parts[sizes, told, bounded] = parts
        return parts

    def _look(self, blob: bytes) -> Parts | None:
        head = heads(np.frombuffer(blob, np.uint8)[None])[0]
        layout, rows = Layout.of(head, len(blob)), self._model.context_rows
        if layout is None or int(head["version"]) != self._spec.version or layout.label_size != len(STABLE):
            return None
        shape = layout.state, layout.features, layout.targets, layout.width
        if shape != self._shape or not 0 < layout.context <= rows:
            return None
        after = layout.after(rows, bounded=self._bounded)
        features, targets, row = layout.features, layout.targets, 4 * layout.features
        last_at, last_told_at = layout.ring_at - row, layout.interval_at - 4 * targets * layout.width
        ends, ends_at = 2 * targets * layout.bounded, layout.live_at - 8 * targets * layout.bounded
        numbers = Struct(
            f"<{targets}d{last_at - layout.context_at}x{features}f{last_told_at - layout.ring_at}x"
            + f"f{4 * (layout.width - 1)}x" * targets
            + f"{ends_at - layout.interval_at}x{ends}f{targets * LIVE_SUMS}d"
        )
        points = targets + features
        kept_from = layout.context_at + row * (layout.context + 1 - after.context)
        asked_from = layout.ring_at + ENTRY.size * (layout.ring + 1 - after.ring)
        return Parts(
            layout.size,
            layout.state_at,
            layout.stretch_at,
            numbers,
            slice(targets),
            slice(targets, points),
            slice(points, points + targets),
            slice(points + targets, points + targets + ends),
            slice(points + targets + ends, None),
            slice(layout.ring_at, layout.predicted_at),
            slice(kept_from, layout.ring_at),
            slice(asked_from, layout.predicted_at),
            self._header(after.context, after.ring)[_SIZES_AT:_BEHIND_AT],
        )

    def _header(self, rows: int, requests: int) -> bytes:
        """A header after a common step, of which only what does not change from step to step is to be read."""
        state, features, targets, width = self._shape
        return HEADER.pack(
            MAGIC, b"", 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, len(STABLE), 1, state, features, targets, width, rows, requests,
            True, _CARRIED, _NO_REASON, 0, 0, self._spec.version, 1, width, 0.0, self._bounded, self._spec.level or 0.0,
        )  # fmt: skip
