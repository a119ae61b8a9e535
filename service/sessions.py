"""Session metrics: what becomes of clients' states, counted where requests are decided and where the store is swept.

Answers are counted at the predictor, whatever the protocol or the call that brought them; no metric names a client.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.core.errors import AtCapacity, Contended, OrderConflict, RecurveError
from service.core.many.answers import Answers
from service.core.ports import Clock, StateStore
from service.core.predictor import Limits, Predictor
from service.core.registry import Registry
from service.core.requests import Answer, PredictRequest
from service.core.sweep import Swept
from service.core.types import ClientKey
from service.tally import Tally

Adds = Callable[[float], None]


class Sessions:
    """The instruments, on `registry`, tallied by `tally`."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._tally = tally
        self._usual: dict[tuple[str, int, str, str | None], tuple[Adds, Adds]] = {}
        self._observations = Counter(
            "recurve_observations", "Observations absorbed.", ["model", "version"], registry=registry
        )
        self._states = Counter(
            "recurve_states",
            "Answers by how the state behind them came to be; a retry's stored answer counts as replayed.",
            ["model", "status", "reason"],
            registry=registry,
        )
        self._filled = Counter(
            "recurve_filled_steps",
            "Missing steps filled in on the model's own predictions.",
            ["model"],
            registry=registry,
        )
        self._conflicts = Counter(
            "recurve_conflicts",
            "Requests refused because they do not follow the client's last one, or others kept writing it.",
            ["model", "kind"],
            registry=registry,
        )
        self._turned_away = Counter(
            "recurve_turned_away", "Requests of new clients for which there was no room.", ["model"], registry=registry
        )
        self._active = Gauge(
            "recurve_active_clients",
            "Clients heard of in the hour before the last sweep.",
            ["model"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._swept = Counter(
            "recurve_swept_clients", "Expired clients whose records were swept.", ["model"], registry=registry
        )
        self._dropped = Counter(
            "recurve_dropped",
            "What was kept long enough: tombstones of expired clients, records that could not be read.",
            ["kind"],
            registry=registry,
        )
        self._sweeps = Counter("recurve_sweeps", "Sweeps by how they ended.", ["outcome"], registry=registry)
        self._sweeping = Gauge(
            "recurve_sweep_lease",
            "1 while a worker of this service holds the sweeper's lease.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def observe_answer(self, answer: Answer, observations: int) -> None:
        """Count an answer to that many observations."""
        name, state = answer.spec.name, answer.state
        if answer.replayed:
            self._tally.counted(self._states, name, "replayed", "").inc()
            return
        usual = name, answer.version, state.status, state.reason
        counters = self._usual.get(usual)
        if counters is None:
            states = self._tally.counted(self._states, name, state.status, state.reason or "")
            counters = states.add, self._tally.counted(self._observations, name, answer.version).add
            self._usual[usual] = counters
        add_state, add_observations = counters
        add_state(1.0)
        add_observations(observations)
        if state.filled:
            self._tally.counted(self._filled, name).add(state.filled)

    def witness_many(self, answers: Answers) -> None:
        """See WitnessesMany: count these answers, one observation each."""
        name, n = answers.spec.name, len(answers)
        self._tally.counted(self._states, name, "carried", "").add(n)
        self._tally.counted(self._observations, name, answers.spec.version).add(n)

    def observe_refusal(self, model: str, error: RecurveError) -> None:
        """Count a refusal that is about the client's place or room; what is wrong by itself is not."""
        if isinstance(error, OrderConflict | Contended):
            self._tally.counted(self._conflicts, model, error.code).inc()
        elif isinstance(error, AtCapacity):
            self._tally.counted(self._turned_away, model).inc()

    def observe_sweeping(self, sweeping: bool) -> None:
        """This process has begun to sweep, or stopped."""
        self._sweeping.set(sweeping)

    def observe_swept(self, swept: Swept, *, done: bool) -> None:
        """A sweep has ended; `done`: it went through the whole store, and what it saw is the whole picture."""
        self._tally.counted(self._sweeps, "done" if done else "broken_off").inc()
        for model, clients in swept.buried.items():
            self._tally.counted(self._swept, model).add(clients)
        for kind in ("tombstones", "quarantined", "minutes"):
            dropped: int = getattr(swept, f"{kind}_dropped")
            self._tally.counted(self._dropped, kind.removesuffix("s")).add(dropped)
        if done:
            for model, clients in swept.active.items():
                self._active.labels(model).set(clients)


class CountedPredictor(Predictor):
    """A Predictor whose answers and refusals are counted."""

    def __init__(
        self,
        sessions: Sessions,
        registry: Registry,
        store: StateStore,
        clock: Clock = time.time,
        limits: Limits | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(registry, store, clock, limits, **shared)
        self._sessions = sessions

    def predict(self, key: ClientKey, request: PredictRequest) -> Answer:
        """See Predictor.predict."""
        try:
            answer = super().predict(key, request)
        except RecurveError as error:
            self._sessions.observe_refusal(key.model, error)
            raise
        self._sessions.observe_answer(answer, len(request.observations))
        return answer

    def prime(self, key: ClientKey, request: PredictRequest) -> Answer:
        """See Predictor.prime."""
        try:
            answer = super().prime(key, request)
        except RecurveError as error:
            self._sessions.observe_refusal(key.model, error)
            raise
        self._sessions.observe_answer(answer, len(request.observations))
        return answer
