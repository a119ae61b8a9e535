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
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.core import order
from service.core.gaps import advance
from service.core.lookahead import bounds, stretched_ends
from service.core.parts import Shapes
from service.core.record import MAGIC, NO_KEY, PAIRED, LiveErrors
from service.core.registry import STABLE, ServedModel
from service.core.requests import Answer, Marks, PredictRequest, Previous, StateInfo
from service.core.scoring import observed_targets, score
from service.core.sealed import SEAL_SIZE, quick_checksum
from service.core.types import ClientKey, FloatArray, of_tuple

FLOAT32 = np.dtype(np.float32)  # as a type it would be looked up at each use


class Carried(NamedTuple):
    """The next record, not saved yet, and the answer that stands once it is."""

    blob: bytes
    answer: Answer


_carried, _answer, _previous = of_tuple(Carried), of_tuple(Answer), of_tuple(Previous)
_state, _marks = of_tuple(StateInfo), of_tuple(Marks)


class Carrier:
    """Common steps of one model as it is served now, of clients that idle for `ttl_s` at most."""

    def __init__(self, model: ServedModel, ttl_s: float, *, adaptive: bool) -> None:
        self.model = model
        self._ttl_s = ttl_s
        self._served = served = model.labelled()
        self._spec = spec = served.spec
        self._adaptive = adaptive
        self._targets, self._features, self._width = len(spec.targets), len(spec.features), spec.columns
        self._bounded = spec.interval_columns is not None or spec.residuals is not None
        if spec.interval_columns is not None:
            self._lowers, self._uppers = (slice(column, None, spec.columns) for column in spec.interval_columns)
        self._shapes = Shapes(model, bounded=self._bounded)
        self._y = struct.Struct(f"<{self._targets * spec.columns}f")
        self._paired = struct.Struct(f"<{PAIRED.size}x{self._targets}d")  # sums of a shadow, none; stretches
        self._unpaired = bytes(self._paired.size)
        self._no_anomaly = (math.nan,) * self._targets
        self._observes_all = spec.observed.tolist() == list(range(self._features)) and self._targets == self._features

    @staticmethod
    def of(model: ServedModel, ttl_s: float, *, adaptive: bool) -> Carrier | None:
        """A model's carrier; None while its clients are shadowed: that is the long way."""
        return None if model.shadow_of(model.labelled(), STABLE) else Carrier(model, ttl_s, adaptive=adaptive)

    def step(
        self, key: ClientKey, blob: bytes, request: PredictRequest, digest: bytes, now: float, *, own: bool = False
    ) -> Carried | None:
        """What the request, which is checked, makes of the record in `blob`; None unless all is as usual.

        `digest` is the request's own, `now` the time; `own`: this process sealed the record and has held it since.
        """
        observations, times, asked, idempotency_key, _, horizon, _ = request
        shapes = self._shapes
        if len(observations) != 1 or horizon != 1 or len(blob) < shapes.head.size:
            return None
        (
            magic, seal, generation, step, behind, scored, last_time, created, touched, weight,
            sizes, told, bounded, begins,
        ) = shapes.head.unpack_from(blob)  # fmt: skip
        parts = shapes.of(blob, sizes, told, bounded)
        if parts is None:
            return None
        (
            size, state_at, numbers_at, reads, at_stretch, at_before, at_points, at_ends, at_sums, at_ring, at_context,
            at_requests, sizes,
        ) = parts  # fmt: skip
        usual = (
            magic == MAGIC
            and begins == shapes.begins
            and generation <= self.model.generation
            and len(blob) == size
            and now - touched <= self._ttl_s
            and (asked is None or asked == step + 1)
            and (times is None or self._follows(times[0], last_time))
            and (own or seal == quick_checksum(key, memoryview(blob)[SEAL_SIZE:]))
        )
        if not usual:
            return None
        key_hash = NO_KEY if idempotency_key is None else order.hash_of(idempotency_key)
        if key_hash != NO_KEY and key_hash in blob[at_ring]:  # known, or by chance: the long way tells
            return None
        spec, numbers = self._spec, reads.unpack_from(blob, numbers_at)
        stretch = numbers[at_stretch] if self._adaptive else None
        seen, points = spec.row.unpack(row := observations.tobytes()), numbers[at_points]
        live, marks, stretch, anomaly = score(
            LiveErrors(scored, weight, numbers[at_sums]), spec, points, numbers[at_ends] or None, seen,
            numbers[at_before], stretch,
        )  # fmt: skip
        state = np.ndarray((1, spec.initial_state.size), FLOAT32, blob, state_at)
        y, state = self._served.engine.step(observations, state)
        y_bytes = y.tobytes()
        plain = self._y.unpack(y_bytes)
        if not (math.isfinite(sum(plain)) and math.isfinite(np.vdot(state, state))):  # or so large: the long way tells
            return None
        ends = self._ends(y, plain, stretch)
        begin = shapes.begin.pack(
            self.model.generation, step + 1, behind + 1, live.scored, advance(spec, last_time, times, 1, now), created,
            now, live.weight, sizes, behind + 1, shapes.told, shapes.begins,
        )  # fmt: skip
        end = shapes.end.pack(
            key_hash, digest, step + 1, step + 1, *points, *(anomaly or self._no_anomaly), y_bytes, *ends, *live.sums
        )
        body = b"".join(
            (
                begin, state.tobytes(), y_bytes, self._unpaired if stretch is None else self._paired.pack(*stretch),
                blob[at_context], row, blob[at_requests], end,
            )
        )  # fmt: skip
        targets = self._targets
        previous = _previous(
            (
                np.ndarray((targets,), FLOAT32, end, shapes.points_at),
                observations[0] if self._observes_all else observed_targets(spec, observations[0]),
                None if anomaly is None else np.ndarray((targets,), FLOAT32, end, shapes.anomaly_at),
            )
        )
        interval = np.ndarray((1, targets, 2), FLOAT32, end, shapes.ends_at) if self._bounded else None
        info = _state(("carried", None, behind + 1, 0, None))
        answer = _answer(
            (
                spec, spec.version, key.client, step + 1, y, interval, None, previous, info, spec.level, False, created,
                _marks((tuple(marks),)), None,
            )
        )  # fmt: skip
        return _carried((b"".join((MAGIC, quick_checksum(key, body), body)), answer))

    def _follows(self, time: float, last_time: float) -> bool:
        """Whether an observation of `time` comes right after one of `last_time` (NaN: unknown)."""
        interval_s, span = self._spec.interval_s, time - last_time
        if interval_s is None or span != span:
            return not span <= 0
        return interval_s / 2 <= span and round(span / interval_s) <= 1

    def _ends(self, y: FloatArray, plain: Sequence[float], stretch: tuple[float, ...] | None) -> Sequence[float]:
        """The bounds around the prediction ``y`` (1, K, W) as the client is told them: lower and upper of each target
        in turn, none where the model has none. `plain`: its numbers."""
        spec = self._spec
        if spec.interval_columns is not None:
            lowers, uppers = plain[self._lowers], plain[self._uppers]
        elif (own := bounds(spec, y[0])) is not None:
            lowers, uppers = own[:, 0].tolist(), own[:, 1].tolist()
        else:
            return ()
        if stretch is not None and any(stretch):
            return stretched_ends(spec, plain[:: self._width], lowers, uppers, stretch)
        return [end for pair in zip(lowers, uppers, strict=True) for end in pair]
