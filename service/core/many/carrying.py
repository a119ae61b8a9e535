"""`carry.Carrier` over many clients at once: from the rows of an array of records to the next ones.

It makes the same bytes and the same answers, but for what the engine makes of another batch. Whose record or request is
not as usual is left out, and goes the predictor's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from service.core.lookahead import bounds
from service.core.many.answers import Answers
from service.core.many.asked import Asked, Places
from service.core.many.layout import Bytes, Head, Layout, alike, heads, part
from service.core.many.marking import Numbers, Past, mark, stretch_out
from service.core.perlist import PerList
from service.core.record import (
    ENTRY,
    FINGERPRINT_SIZE,
    HEADER,
    LIVE_SUMS,
    MAGIC,
    REASONS,
    STATUSES,
)
from service.core.registry import STABLE, ServedModel
from service.core.scoring import DECAY
from service.core.sealed import SEAL_SIZE
from service.core.types import ClientKey, FloatArray, ModelSpec

LEAST = 8  # records of one shape: fewer are as fast one by one
_CARRIED, _NO_REASON = STATUSES.index("carried"), REASONS.index(None)


class Carried(NamedTuple):
    """The next records ``rows`` (n, size) of the clients at `places`, not saved yet, and the answers that stand once
    they are. Nobody writes into them any more."""

    places: Places
    rows: Bytes
    answers: Answers

    def blobs(self) -> list[memoryview]:
        """The records one by one, as views of ``rows``."""
        size, view = self.rows.shape[1], memoryview(self.rows.data).cast("B")
        return [view[at : at + size] for at in range(0, len(view), size)]


class ManyCarrier:
    """Common steps of many clients of one model as it is served now."""

    def __init__(self, model: ServedModel, *, adaptive: bool) -> None:
        self.model = model
        self._served = model.labelled()
        self._spec = self._served.spec
        self._adaptive = adaptive
        self._begins = np.frombuffer(STABLE.encode() + bytes.fromhex(self._spec.fingerprint), np.uint8)

    @staticmethod
    def of(model: ServedModel, *, adaptive: bool) -> ManyCarrier | None:
        """A model's carrier; None while its clients are shadowed."""
        return None if model.shadow_of(model.labelled(), STABLE) else ManyCarrier(model, adaptive=adaptive)

    def step(self, asked: Asked, blobs: Sequence[bytes], now: float, ttl_s: float) -> list[Carried]:
        """What the requests make of the records in `blobs`, one for each of them; of those that are as usual.

        The requests are checked. `now` is the time, `ttl_s` for how long a client may idle.
        """
        found = []
        for places, rows in alike(blobs):
            carried = self._of_shape(asked.some(places), places, rows, now, ttl_s, sealed_here=False)
            if carried is not None:
                found.append(carried)
        return found

    def again(self, asked: Asked, rows: Bytes, now: float, ttl_s: float) -> Carried | None:
        """As `step`, of records ``rows`` (n, size) that came from here and never left the process: their seals, made
        here, are not looked at."""
        return self._of_shape(asked, np.arange(len(rows)), rows, now, ttl_s, sealed_here=True)

    def _of_shape(
        self, asked: Asked, places: Places, rows: Bytes, now: float, ttl_s: float, *, sealed_here: bool
    ) -> Carried | None:
        layout = Layout.of(heads(rows[:1])[0], rows.shape[1]) if len(rows) >= LEAST else None
        if layout is None or not self._serves(layout):
            return None
        return self._step(asked, places, layout, rows, now, ttl_s, sealed_here)

    def _serves(self, layout: Layout) -> bool:
        spec = self._spec
        shape = layout.state, layout.features, layout.targets, layout.width
        return (
            shape == (spec.initial_state.size, len(spec.features), len(spec.targets), spec.columns)
            and layout.label_size == len(self._begins) - FINGERPRINT_SIZE
            and 0 < layout.context <= self.model.context_rows
        )

    def _step(
        self, asked: Asked, places: Places, layout: Layout, rows: Bytes, now: float, ttl_s: float, sealed_here: bool
    ) -> Carried | None:
        head = heads(rows)
        key_crcs = _key_crcs.of(asked.keys)
        digests, key_hashes = asked.digests(), asked.key_hashes()
        usual = self._are_usual(asked, layout, rows, head, now, ttl_s)
        usual &= head["key_crc"] == key_crcs
        if not sealed_here:
            usual &= head["crc"] == _crcs(rows)
        if key_hashes is not None:
            usual &= _are_new(layout, rows, key_hashes)
        entries = _entries(len(rows), digests, key_hashes)
        if not usual.all():
            some = np.flatnonzero(usual)
            if len(some) == 0:
                return None
            asked, places, rows, head, key_crcs, entries = (
                asked.some(some), places[some], rows[some], head[some], key_crcs[some], entries[some]
            )  # fmt: skip
        past = self._past(layout, rows, head)
        x, before = asked.observations, part(rows, layout.ring_at - 4 * layout.features, layout.ring_at, "<f4")
        marked = mark(self._spec, past, x, before)
        y, state = self._served.engine.step(x, part(rows, layout.state_at, layout.y_at, "<f4"))
        y, state = np.ascontiguousarray(y), np.ascontiguousarray(state)
        # summed in float64, where no float32 overflows: not a number, or infinite, shows in the sum
        finite = np.isfinite(state.sum(axis=1, dtype=np.float64)) & np.isfinite(y.sum(axis=(1, 2), dtype=np.float64))
        if not finite.all():  # these are refused one by one, and the others done anew
            some = np.flatnonzero(finite)
            return self._step(asked.some(some), places[some], layout, rows[some], now, ttl_s, sealed_here)
        interval = self._interval(y, marked.stretch)
        following = layout.after(self.model.context_rows, bounded=interval is not None)
        head = self._next_head(head, following, asked, now)
        after = np.empty((len(rows), following.size), np.uint8)
        self._write(after, following, rows, layout, head, x, entries, past.point, y, state, marked.stretch)
        _put(after, following.anomaly_at, marked.anomaly)
        _put(after, following.live_at, marked.sums)
        if interval is not None:
            _put(after, following.interval_at, interval)
        answers = Answers(
            self._spec, asked, head["step"].copy(), head["behind"].copy(), head["created"].copy(), y, interval,
            past.point, _observed(self._spec, x), marked.anomaly, marked.marks.reshape(len(rows), -1),
        )  # fmt: skip
        _seal(after, key_crcs)
        return Carried(places, after, answers)

    def _are_usual(
        self, asked: Asked, layout: Layout, rows: Bytes, head: Head, now: float, ttl_s: float
    ) -> NDArray[np.bool_]:
        """Which of the records and requests the common step is for, seals and idempotency keys aside."""
        usual: NDArray[np.bool_] = (
            (rows[:, HEADER.size : layout.state_at] == self._begins).all(axis=1)
            & (head["generation"] <= self.model.generation)
            & (head["version"] == self._spec.version)
            & (now - head["touched"] <= ttl_s)
        )
        if asked.steps is not None:
            usual &= (asked.steps == 0) | (asked.steps == head["step"].astype(np.int64) + 1)
        if asked.times is not None:
            span, interval_s = asked.times - head["last_time"], self._spec.interval_s
            if interval_s is None:
                usual &= ~(span <= 0)  # NaN: the client's last time is not known, or the request has none
            else:
                usual &= np.isnan(span) | ((span >= interval_s / 2) & (np.rint(span / interval_s) <= 1))
        return usual

    def _past(self, layout: Layout, rows: Bytes, head: Head) -> Past:
        n, targets = len(rows), layout.targets
        row = 4 * targets * layout.width
        stretch = part(rows, layout.stretch_at, layout.context_at, "<f8") if self._adaptive else None
        told = part(rows, layout.interval_at - row, layout.interval_at, "<f4").reshape(n, targets, -1)
        interval = None
        if layout.bounded:
            interval = part(rows, layout.live_at - 8 * targets, layout.live_at, "<f4").reshape(n, targets, 2)
        sums = part(rows, layout.live_at, layout.size, "<f8").reshape(n, targets, LIVE_SUMS)
        point = np.ascontiguousarray(told[:, :, 0])
        return Past(head["scored"], head["weight"], sums, stretch, point, interval)

    def _interval(self, y: FloatArray, stretch: Numbers | None) -> FloatArray | None:
        own = bounds(self._spec, y)
        return own if own is None or stretch is None else stretch_out(self._spec, y, own, stretch)

    def _next_head(self, head: Head, following: Layout, asked: Asked, now: float) -> Head:
        spec, after = self._spec, head.copy()
        after["generation"] = self.model.generation
        after["step"] += 1
        after["behind"] += 1
        after["scored"] += 1
        after["last_time"] = _advanced(spec, head["last_time"], asked.times, now)
        after["touched"] = now
        after["weight"] = head["weight"] * DECAY + 1.0
        after["context"], after["ring"], after["told"] = following.context, following.ring, 1
        after["status"], after["reason"], after["filled"] = _CARRIED, _NO_REASON, 0
        after["last_behind"] = after["behind"]
        after["last_seen"] = 0.0
        after["bounded"], after["level"] = following.bounded, spec.level or 0.0
        return after

    def _write(
        self, after: Bytes, following: Layout, rows: Bytes, layout: Layout, head: Head, x: FloatArray, entries: Bytes,
        point: FloatArray, y: FloatArray, state: FloatArray, stretch: Numbers | None,
    ) -> None:  # fmt: skip
        """Everything but what was marked, and the interval."""
        after[:, : HEADER.size] = head.view(np.uint8).reshape(len(head), -1)
        after[:, HEADER.size : following.state_at] = self._begins
        _put(after, following.state_at, state)
        _put(after, following.y_at, y)
        after[:, following.sums_at : following.context_at] = 0
        if stretch is not None:
            _put(after, following.stretch_at, stretch)
        row = 4 * layout.features
        kept = row * (following.context - 1)
        after[:, following.context_at : following.context_at + kept] = rows[:, layout.ring_at - kept : layout.ring_at]
        _put(after, following.ring_at - row, x)
        kept = ENTRY.size * (following.ring - 1)
        remembered = rows[:, layout.predicted_at - kept : layout.predicted_at]
        after[:, following.ring_at : following.ring_at + kept] = remembered
        entries[:, 16:] = np.repeat(head["step"], 2).view(np.uint8).reshape(len(head), -1)
        after[:, following.ring_at + kept : following.predicted_at] = entries
        _put(after, following.predicted_at, point)
        _put(after, following.told_at, y)


def _put(rows: Bytes, at: int, numbers: NDArray[np.generic]) -> None:
    flat = np.ascontiguousarray(numbers).reshape(len(rows), -1).view(np.uint8)
    rows[:, at : at + flat.shape[1]] = flat


def _crcs(rows: Bytes) -> NDArray[np.uint32]:
    """The CRC of each record's body."""
    size, view = rows.shape[1], memoryview(rows.data).cast("B")
    return np.array([crc32(view[at + SEAL_SIZE : at + size]) for at in range(0, len(view), size)], np.uint32)


def _crcs_of_keys(keys: tuple[ClientKey, ...]) -> NDArray[np.uint32]:
    """`sealed.quick_checksum`'s CRC of each key. They are of one model, so all begin alike."""
    tenant, model, _ = keys[0]
    begun = crc32(f"{tenant}\0{model}\0".encode())
    return np.array([crc32(client.encode(), begun) for _, _, client in keys], np.uint32)


_key_crcs = PerList(_crcs_of_keys)


def _seal(rows: Bytes, key_crcs: NDArray[np.uint32]) -> None:
    crcs = _crcs(rows)
    rows[:, :4] = np.frombuffer(MAGIC, np.uint8)
    _put(rows, 4, crcs)
    _put(rows, 8, key_crcs)


def _entries(n: int, digests: bytes, key_hashes: bytes | None) -> Bytes:
    """What the ring is to remember of the requests, without their steps: ENTRY as bytes."""
    entries = np.zeros((n, ENTRY.size), np.uint8)
    if key_hashes is not None:
        entries[:, :8] = np.frombuffer(key_hashes, np.uint8).reshape(n, 8)
    entries[:, 8:16] = np.frombuffer(digests, np.uint8).reshape(n, 8)
    return entries


def _are_new(layout: Layout, rows: Bytes, key_hashes: bytes) -> NDArray[np.bool_]:
    """Whose idempotency key is none of the last requests'."""
    own = np.frombuffer(key_hashes, "<u8")
    ring = part(rows, layout.ring_at, layout.predicted_at, "<u8").reshape(len(rows), layout.ring, -1)
    new: NDArray[np.bool_] = (own == 0) | ~(ring[:, :, 0] == own[:, None]).any(axis=1)
    return new


def _advanced(spec: ModelSpec, last_time: Numbers, times: Numbers | None, now: float) -> Numbers:
    """`gaps.advance` after one observation."""
    guess = last_time
    if spec.interval_s is not None:
        guess = np.maximum(last_time, np.minimum(last_time + spec.interval_s, now))
    return guess if times is None else np.where(np.isnan(times), guess, times)


def _observed(spec: ModelSpec, x: FloatArray) -> FloatArray:
    """`scoring.observed_targets` of ``x`` (n, F): (n, K) float32."""
    known = spec.observed >= 0
    return np.where(known, x[:, np.where(known, spec.observed, 0)], np.float32(np.nan))
