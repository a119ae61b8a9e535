"""The life of a request: load, check, rebuild if need be, step, pack, save with compare-and-set."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.core import order, standing, transition
from service.core.capacity import Capacity
from service.core.carry import Carried, Carrier
from service.core.checks import check_request
from service.core.errors import ClientNotFound, InvalidInput, RecordCorrupt
from service.core.lifetime import idle_ttl_s
from service.core.locks import ClientLocks
from service.core.lookahead import bounds, check_horizon, look_ahead, stretched
from service.core.patience import give_way
from service.core.permodel import PerModel
from service.core.ports import Clock, Page, StateStore, Stored, Witness
from service.core.recent import Recent
from service.core.record import Record
from service.core.records import Records
from service.core.registry import CANDIDATE, STABLE, Registry, Served, ServedModel
from service.core.requests import Answer, ClientView, GateTrace, PredictRequest, Previous, StateInfo
from service.core.scoring import marks_of, observed_targets
from service.core.shadow import kept
from service.core.supposing import Supposed, check_supposed, follow
from service.core.tombstones import as_record
from service.core.transition import Outcome, Turn
from service.core.types import ClientKey, FloatArray, ModelSpec
from service.core.writing import until_saved

LONG_HISTORY = 1000  # observations; a shorter one is done within some milliseconds


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what one process accepts. `idle_ttl_s` None: the longer of 7 days and 30 intervals.

    `adaptive_intervals`: a client's intervals widen and narrow with its own errors (`scoring.score`).
    """

    max_horizon: int = 1000
    max_gap: int = 24
    max_clients: int = 1_000_000
    idle_ttl_s: float | None = None
    contention_s: float = 2.0
    adaptive_intervals: bool = False


class Predictor:
    """Steps clients' states, one observation at a time or several, exactly once each.

    Safe from any thread and, over a shared store, from any process. Every refusal is a RecurveError and leaves
    the client's record as it was. `locks`, `capacity` and `recent` are shared with whoever else writes in this process;
    `witnesses` are told of every predict that was absorbed.
    """

    def __init__(
        self,
        registry: Registry,
        store: StateStore,
        clock: Clock = time.time,
        limits: Limits | None = None,
        *,
        locks: ClientLocks | None = None,
        capacity: Capacity | None = None,
        witnesses: Sequence[Witness] = (),
        recent: Recent | None = None,
    ) -> None:
        self.registry = registry
        self._store = store
        self._records = Records(store, clock)
        self._clock = clock
        self._limits = limits if limits is not None else Limits()
        self._locks = ClientLocks() if locks is None else locks
        self._capacity = Capacity(store, self._limits.max_clients, clock) if capacity is None else capacity
        self._witnesses = tuple(witnesses)
        self._recent = Recent() if recent is None else recent
        self._carriers = PerModel(self._carrier)
        self._long_one = threading.Lock()

    def predict(self, key: ClientKey, request: PredictRequest) -> Answer:
        """Absorb the request's observations, all or none, and predict what comes next.

        A repeated request (by step, idempotency key or time) gets the stored answer, `replayed`.
        OrderConflict, InvalidInput, Unsupported, AtCapacity, Contended, StoreUnavailable: nothing moved.
        """
        model = self.registry.model(key.model)
        give_way(len(request.observations) * (1 + (CANDIDATE in model.labels)) + request.horizon)
        stable = model.labelled()
        check_request(stable.spec, request, self._clock(), self._limits.max_horizon)
        digest = order.digest_of(request)

        def attempt() -> Answer | None:
            if (recent := self._recent.take(key)) is not None:
                carried = self._carry(model, key, recent, request, digest, own=True)
                if carried is not None:
                    if self._put(key, recent, carried):
                        return carried.answer
                    self._recent.overtaken(key)
            stored, swept = self._records.find(key), False
            record: Record | str | None
            if stored is None:
                record = self._buried(key, stable.spec)
                swept = record is not None
            elif (carried := self._carry(model, key, stored, request, digest)) is not None:
                return carried.answer if self._put(key, stored, carried) else None
            else:
                record = self._records.read(key, stored, stable.spec)
            if not isinstance(record, Record):
                if stored is None:
                    self._capacity.check(key.tenant, key.model)
                turn = self._turn(model, stable, request, digest)
                return self._commit(key, stored, transition.begin(turn, record), request)
            current = self.registry.at_least(model, record.generation)
            served, fell_back = standing.version_for(current, record)
            if order.is_retry(record, request, digest):
                return self._replay(key, current, served, record, request)
            if swept:
                self._capacity.check(key.tenant, key.model)
            turn = self._turn(current, served, request, digest, record.label)
            expired = swept or self._is_expired(served.spec, record)
            if not expired:
                transition.give_way_to_rebuild(turn, record)
            outcome = transition.go_on(turn, record, expired=expired, fell_back=fell_back)
            return self._commit(key, stored, outcome, request)

        answer = until_saved(self._locks, key, attempt, self._limits.contention_s)
        if not answer.replayed:
            for each in self._witnesses:
                each.witness(key, request, answer)
        return answer

    def prime(self, key: ClientKey, request: PredictRequest) -> Answer:
        """Begin the client anew from its history: a fresh state stepped through all observations, none scored.

        `step` names the first observation (default 1). Priming twice with the same history ends in the same state. A
        client that is pinned to a label stays so. Long histories take turns: each keeps a processor busy, and together
        they would leave none for everybody else.
        """
        model = self.registry.model(key.model)
        check_request(model.labelled().spec, request, self._clock(), self._limits.max_horizon)

        def attempt() -> Answer | None:
            stored, record = self._records.load(key, model.labelled().spec)
            if stored is None:
                self._capacity.check(key.tenant, key.model)
            current, served, label = model, model.labelled(), STABLE
            if isinstance(record, Record):
                current, label = self.registry.at_least(model, record.generation), record.label
                served, _ = standing.version_for(current, record)
            outcome = transition.prime(self._turn(current, served, request, b"", label), label)
            return self._commit(key, stored, outcome, request)

        with self._long_one if len(request.observations) > LONG_HISTORY else nullcontext():
            return until_saved(self._locks, key, attempt, self._limits.contention_s)

    def forecast(self, key: ClientKey, horizon: int, supposed: Supposed | None = None) -> Answer:
        """Look `horizon` steps ahead from where the client stands, or would stand after what is `supposed`; nothing
        moves."""
        _, record, served, reason = self._stand(key)
        future, step = None if supposed is None else supposed.future, record.step
        check_horizon(served.spec, horizon, self._limits.max_horizon, known=future is not None)
        if supposed is not None:
            check_supposed(served.spec, supposed, horizon)
        state, y, info = standing.state_now(served, record, reason)
        if supposed is not None:
            state, y = follow(served.engine, state, y, supposed.observations)
            step += len(supposed.observations)
            info = info._replace(context=info.context + len(supposed.observations))
        here = kept(record, served.spec)
        stretch = here.track.stretch if self._limits.adaptive_intervals and here is not None else ()
        ahead = look_ahead(served.spec, served.engine, state, y, horizon, stretch, future)
        own = bounds(served.spec, y)
        interval = None if own is None else stretched(served.spec, y, own, stretch)[None]
        return _answer(served.spec, key, step, y[None], interval, ahead, None, info)

    def inspect(self, key: ClientKey) -> ClientView:
        """What is known of the client. ClientNotFound if nothing is kept, or only a tombstone."""
        stored, record, served, _ = self._stand(key, expired_too=True)
        ttl_s = idle_ttl_s(self._limits.idle_ttl_s, served.spec)
        return standing.view(key, self.registry.model(key.model), served, record, len(stored.blob), ttl_s)

    def forget(self, key: ClientKey) -> bool:
        """Delete the client and all that is left of it; True if there was a record, or an expired one's tombstone.

        Its next observation is step 1. The record goes last: broken off, the client is as it was.
        """
        self.registry.model(key.model)
        with self._locks.of(key):
            buried = self._records.clear(key)
            gone = self._records.delete(key)
            if not gone:  # it may have been buried just now
                buried = self._records.clear(key) or buried
        if gone:
            self._capacity.add(key.tenant, key.model, -1)
        return gone or buried

    def clients(self, tenant: str, model: str, after: str | None, limit: int) -> Page:
        """Some of the model's clients; see StateStore.list."""
        self.registry.model(model)
        return self._store.list(tenant, model, after, limit)

    def gates(self, key: ClientKey, last: int) -> GateTrace:
        """Gate activations over the client's last observations, its context replayed from a fresh state."""
        if last < 1:
            raise InvalidInput("last", f"must be at least 1, not {last}")
        _, record, served, _ = self._stand(key)
        return standing.trace_gates(key, served, record, last)

    # -- parts of a request -------------------------------------------------------------------------------------

    def _commit(
        self, key: ClientKey, stored: Stored | None, outcome: Outcome, request: PredictRequest
    ) -> Answer | None:
        """The answer once the record is stored; None if another writer was first."""
        record, progress, ahead = outcome.record, outcome.progress, None
        spec, y = progress.spec, progress.predictions()
        if request.horizon > 1:  # before the save: if looking ahead fails, nothing has moved
            stretch = progress.stretch or ()
            ahead = look_ahead(spec, progress.engine, progress.batch[0], y[-1], request.horizon, stretch)
        if not self._records.save(key, stored, record):
            return None
        if stored is None:
            self._capacity.add(key.tenant, key.model, 1)
        previous = None
        if outcome.scored is not None:
            previous = _previous(spec, outcome.scored.point, request, progress.anomaly)
        info = StateInfo(progress.status, progress.reason, progress.behind, progress.filled, progress.last_seen)
        marks, paired = marks_of(progress.marks), outcome.paired
        return _answer(
            spec, key, record.step, y, outcome.interval, ahead, previous, info, marks=marks, paired=paired,
            begun=record.created,
        )  # fmt: skip

    def _replay(
        self, key: ClientKey, model: ServedModel, served: Served, record: Record, request: PredictRequest
    ) -> Answer:
        """The last request's answer again, from the record. A look ahead is computed by the version that answered;
        where that is not served any more, it is left out."""
        last, track, spec = record.last, record.tracks[0], served.spec
        if last is None:
            raise RecordCorrupt("the record remembers a request without its answer")
        ahead, made_by = None, model.by_fingerprint(track.fingerprint)
        if request.horizon > 1 and made_by is not None:
            state, y, horizon = track.state, track.y, request.horizon
            ahead = look_ahead(made_by.spec, made_by.engine, state, y, horizon, track.stretch)
        return Answer(
            spec=spec,
            version=last.version,
            client=key.client,
            step=record.step,
            y=last.y,
            interval=last.interval,
            ahead=ahead,
            previous=None if np.isnan(last.predicted).all() else _previous(spec, last.predicted, request, last.anomaly),
            state=StateInfo(last.status, last.reason, last.behind, last.filled, last.last_seen or None),
            level=last.level or None,
            replayed=True,
        )

    def _carry(
        self, model: ServedModel, key: ClientKey, stored: Stored, request: PredictRequest, digest: bytes, *,
        own: bool = False,
    ) -> Carried | None:  # fmt: skip
        """The request as a common step, None if it is none. `own`: see Carrier.step."""
        carrier = self._carriers.of(model)
        if carrier is None:
            return None
        return carrier.step(key, stored.blob, request, digest, self._clock(), own=own)

    def _carrier(self, model: ServedModel) -> Carrier | None:
        limits = self._limits
        ttl_s = idle_ttl_s(limits.idle_ttl_s, model.labelled().spec)
        return Carrier.of(model, ttl_s, adaptive=limits.adaptive_intervals)

    def _put(self, key: ClientKey, stored: Stored, carried: Carried) -> bool:
        """Save a common step's record, and remember it; False if another writer was first."""
        now = self._records.put(key, stored, carried.blob)
        if now is not None:
            self._recent.keep(key, now)
        return now is not None

    # -- small things -------------------------------------------------------------------------------------------

    def _turn(
        self, model: ServedModel, served: Served, request: PredictRequest, digest: bytes, label: str = STABLE
    ) -> Turn:
        limits, candidate = self._limits, model.shadow_of(served, label)
        adaptive, generation, rows = limits.adaptive_intervals, model.generation, model.context_rows
        return Turn(request, digest, served, generation, self._clock(), limits.max_gap, rows, adaptive, candidate)

    def _stand(self, key: ClientKey, *, expired_too: bool = False) -> tuple[Stored, Record, Served, str]:
        """The client's record, who serves it, and why it would be rebuilt. ClientNotFound if none, lost or expired."""
        stored, record, _, served, fell_back = standing.find(self.registry, self._records, key)
        if not expired_too and self._is_expired(served.spec, record):
            raise ClientNotFound(key.model, key.client, record.touched)
        return stored, record, served, transition.rebuild_reason(fell_back)

    def _buried(self, key: ClientKey, spec: ModelSpec) -> Record | None:
        """What a swept client's tombstone remembers, as a record without a state."""
        stone = self._records.tombstone(key)
        return None if stone is None else as_record(stone, spec)

    def _is_expired(self, spec: ModelSpec, record: Record) -> bool:
        return self._clock() - record.touched > idle_ttl_s(self._limits.idle_ttl_s, spec)


def _previous(spec: ModelSpec, predicted: FloatArray, request: PredictRequest, anomaly: FloatArray | None) -> Previous:
    return Previous(predicted, observed_targets(spec, request.observations[0]), anomaly)


def _answer(
    spec: ModelSpec,
    key: ClientKey,
    step: int,
    y: FloatArray,
    interval: FloatArray | None,
    ahead: FloatArray | None,
    previous: Previous | None,
    info: StateInfo,
    **told: Any,
) -> Answer:
    return Answer(spec, spec.version, key.client, step, y, interval, ahead, previous, info, spec.level, **told)
