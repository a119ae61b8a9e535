"""The common step, straight from one record's bytes to the next one's: a request takes a third less time than the long
way.

Nearly every request is one observation, in its order and without a gap, of a client whose state was made by the
weights that serve it, under `stable`, with nothing in its shadow. What such a step changes stands at known places of
the record. Whatever else a record or a request says, there is no answer here, and the long way (`transition.go_on`) has
it. Both make the same bytes and the same answer, which a test holds for all kinds of requests.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np

from service.core import order
from service.core.gaps import advance
from service.core.lookahead import bounds, stretched_ends
from service.core.record import (
    ENTRY,
    FINGERPRINT_SIZE,
    HEADER,
    LIVE_SUMS,
    MAGIC,
    NO_KEY,
    PAIRED,
    REASONS,
    STATUSES,
    LiveErrors,
)
from service.core.registry import STABLE, ServedModel
from service.core.requests import Answer, Marks, PredictRequest, Previous, StateInfo
from service.core.scoring import observed_targets, score
from service.core.sealed import SEAL_SIZE, quick_checksum
from service.core.types import ClientKey, FloatArray

_CARRIED, _NO_REASON = STATUSES.index("carried"), REASONS.index(None)


class Carried(NamedTuple):
    """The next record, not saved yet, and the answer that stands once it is."""

    blob: bytes
    answer: Answer


class Carrier:
    """Common steps of one model as it is served now, of clients that idle for `ttl_s` at most."""

    def __init__(self, model: ServedModel, ttl_s: float, *, adaptive: bool) -> None:
        self.model = model
        self._ttl_s = ttl_s
        self._served = served = model.labelled()
        self._spec = spec = served.spec
        self._adaptive = adaptive
        self._targets, self._features, width = len(spec.targets), len(spec.features), spec.columns
        self._width, self._columns = width, spec.interval_columns
        self._shape = 1, spec.initial_state.size, self._features, self._targets, width  # as a header says it
        self._begins = STABLE.encode() + bytes.fromhex(spec.fingerprint)
        self._y_size, self._ends_size = 4 * self._targets * width, 8 * self._targets
        self._row_size = 4 * self._features
        self._y, self._points = struct.Struct(f"<{self._targets * width}f"), struct.Struct(f"<{self._targets}f")
        self._ends, self._row = struct.Struct(f"<{2 * self._targets}f"), struct.Struct(f"<{self._features}f")
        self._stretch = struct.Struct(f"<{self._targets}d")
        self._live = struct.Struct(f"<{self._targets * LIVE_SUMS}d")
        self._no_anomaly = self._points.pack(*[math.nan] * self._targets)
        self._observes_all = spec.observed.tolist() == list(range(self._features)) and self._targets == self._features

    @staticmethod
    def of(model: ServedModel, ttl_s: float, *, adaptive: bool) -> Carrier | None:
        """A model's carrier; None while its clients are shadowed: that is the long way."""
        return None if model.shadow_of(model.labelled(), STABLE) else Carrier(model, ttl_s, adaptive=adaptive)

    def step(self, key: ClientKey, blob: bytes, request: PredictRequest, digest: bytes, now: float) -> Carried | None:
        """What the request, which is checked, makes of the record in `blob`; None unless all is as usual.

        `digest` is the request's own, `now` the time.
        """
        if len(request.observations) != 1 or request.horizon != 1 or len(blob) < HEADER.size or blob[:4] != MAGIC:
            return None
        (
            _, seal, generation, step, behind, scored, last_time, created, touched, weight,
            label_size, tracks, state_size, features, targets, width, rows, entries,
            answered, _, _, _, _, version, told_rows, told_width, _, bounded, _,
        ) = HEADER.unpack_from(blob)  # fmt: skip
        spec, times = self._spec, request.times
        state_at = HEADER.size + len(self._begins)
        y_at = state_at + 4 * state_size
        context_at = y_at + self._y_size + PAIRED.size + 8 * targets
        ring_at = context_at + rows * self._row_size
        told_at = ring_at + entries * ENTRY.size + 8 * targets  # behind what was told before it, and its anomaly
        ends_at = told_at + told_rows * self._y_size
        live_at = ends_at + told_rows * self._ends_size * bounded
        usual = (
            (tracks, state_size, features, targets, width) == self._shape
            and blob[HEADER.size : state_at] == self._begins
            and label_size == len(self._begins) - FINGERPRINT_SIZE
            and generation <= self.model.generation
            and answered
            and (version, told_width) == (spec.version, width)
            and told_rows
            and 0 < rows <= self.model.context_rows
            and len(blob) == live_at + self._live.size
            and now - touched <= self._ttl_s
            and request.step in (None, step + 1)
            and (times is None or self._follows(times[0], last_time))
            and seal == quick_checksum(key, memoryview(blob)[SEAL_SIZE:])
        )
        if not usual:
            return None
        ring, key_hash = blob[ring_at : ring_at + entries * ENTRY.size], order.key_hash(request)
        if key_hash != NO_KEY and key_hash in ring:  # known, or by chance: the long way tells
            return None
        points = self._y.unpack_from(blob, ends_at - self._y_size)[::width]
        ends = self._ends.unpack_from(blob, live_at - self._ends_size) if bounded else None
        stretch = self._stretch.unpack_from(blob, context_at - 8 * targets) if self._adaptive else None
        seen = request.observations[0].tolist()
        errors = LiveErrors(scored, weight, self._live.unpack_from(blob, live_at))
        before = self._row.unpack_from(blob, ring_at - self._row_size)
        live, marks, stretch, anomaly = score(errors, spec, points, ends, seen, before, stretch)
        state = np.frombuffer(blob, np.float32, state_size, state_at)[None]
        y, state = self._served.engine.step(request.observations, state)
        plain = y.ravel().tolist()
        if not (math.isfinite(sum(plain)) and math.isfinite(np.vdot(state, state))):  # or so large: the long way tells
            return None
        last_time = advance(spec, last_time, times, 1, now)
        told_points, told_anomaly = self._points.pack(*points), self._no_anomaly
        if anomaly is not None:
            told_anomaly = self._points.pack(*anomaly)
        told_ends, interval = self._interval(y, plain, stretch)
        full = rows == self.model.context_rows
        context = blob[context_at + self._row_size * full : ring_at]
        ring = order.remember(ring, key_hash, digest, step + 1, step + 1)
        y_bytes = y.tobytes()
        header = HEADER.pack(
            MAGIC, seal, self.model.generation, step + 1, behind + 1, live.scored, last_time, created, now, live.weight,
            label_size, 1, state_size, features, targets, width, rows + (not full),
            len(ring) // ENTRY.size, True, _CARRIED, _NO_REASON, 0, behind + 1, version, 1, width, 0.0,
            interval is not None, spec.level or 0.0,
        )  # fmt: skip
        body = b"".join(
            (
                header[SEAL_SIZE:], self._begins, state.tobytes(), y_bytes, bytes(PAIRED.size),
                bytes(8 * targets) if stretch is None else self._stretch.pack(*stretch),
                context, request.observations.tobytes(), ring, told_points, told_anomaly, y_bytes, told_ends,
                self._live.pack(*live.sums),
            )
        )  # fmt: skip
        previous = Previous(
            np.frombuffer(told_points, np.float32),
            request.observations[0] if self._observes_all else observed_targets(spec, request.observations[0]),
            None if anomaly is None else np.frombuffer(told_anomaly, np.float32),
        )
        answer = Answer(
            spec, version, key.client, step + 1, y, interval, None, previous,
            StateInfo("carried", None, behind + 1), spec.level, marks=Marks(tuple(marks)), begun=created,
        )  # fmt: skip
        return Carried(b"".join((MAGIC, quick_checksum(key, body), body)), answer)

    def _follows(self, time: float, last_time: float) -> bool:
        """Whether an observation of `time` comes right after one of `last_time` (NaN: unknown)."""
        interval_s, span = self._spec.interval_s, time - last_time
        if interval_s is None or span != span:
            return not span <= 0
        return interval_s / 2 <= span and round(span / interval_s) <= 1

    def _interval(
        self, y: FloatArray, plain: list[float], stretch: tuple[float, ...] | None
    ) -> tuple[bytes, FloatArray | None]:
        """The bounds around the prediction ``y`` (1, K, W) as the client is told them: as bytes, and (1, K, 2)."""
        if self._columns is not None:
            width, (lower, upper) = self._width, self._columns
            lowers, uppers = plain[lower::width], plain[upper::width]
        else:
            own = bounds(self._spec, y[0])
            if own is None:
                return b"", None
            lowers, uppers = own[:, 0].tolist(), own[:, 1].tolist()
        if stretch is not None and any(stretch):
            ends = stretched_ends(self._spec, plain[:: self._width], lowers, uppers, stretch)
        else:
            ends = [end for pair in zip(lowers, uppers, strict=True) for end in pair]
        told = self._ends.pack(*ends)
        return told, np.frombuffer(told, np.float32).reshape(1, self._targets, 2)
