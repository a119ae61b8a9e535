"""The composition root: the one module that knows all others, and where everything is built."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flask import Flask

from models.journals import JOURNAL
from models.repository import Repository
from service.core.capacity import Capacity
from service.core.lease import Lease
from service.core.locks import ClientLocks
from service.core.many.together import Together
from service.core.mover import Mover
from service.core.pinning import Pinner
from service.core.ports import Clock, Engine, Scans, StateStore, Witness, WitnessesMany
from service.core.predictor import Limits
from service.core.recent import Recent
from service.core.registry import Registry
from service.core.sweep import Sweep
from service.core.types import ModelSpec
from service.drift.watch import DriftWatch
from service.engines import open_engine
from service.http.app import create_app
from service.http.context import TENANT, Collaborators, HttpLimits
from service.http.sizes import Kinds
from service.judge import Judge, PairedSums, Terms
from service.labels import RepositoryLabels
from service.loader import Loader
from service.metrics import Metrics, ServedNow
from service.minutes import MinuteSums
from service.observed.log import ObservationLog
from service.sessions import CountedPredictor, Sessions
from service.settings import Settings, metrics_dir
from service.stores import is_local, open_store
from service.stores.errors import StoreNotOpened
from service.sweeper import Sweeper

LABELS_WAIT_S = 5.0  # for whoever writes to the repository at the same time; a request waits no longer


class Background(Protocol):
    """What a worker does beside answering, in a thread of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, with nothing left undone."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """One worker's service, built and running. `kinds` tells its server of requests."""

    app: Flask
    registry: Registry
    store: StateStore
    loader: Loader
    metrics: Metrics
    background: tuple[Background, ...]
    kinds: Kinds

    def close(self) -> None:
        """Stop what goes on in the background, the last begun first, and give the store's files back."""
        for each in reversed(self.background):
            each.stop()
        self.store.close()


def build(settings: Settings, clock: Clock = time.time) -> Service:
    """The whole service in this process. Call it after fork: stores and engines are a process's own.

    Loads what is published before it returns, and polls for more from then on. Raises what `open_store` does for
    a URL it can't use; no bundle can make it fail.
    """
    metrics = Metrics(metrics_dir())
    store = metrics.time_store(open_store(settings.state_url))
    registry = Registry()
    sums = MinuteSums(store, clock, settings.minute_s)
    metrics.live.minutes(sums)

    def opened(bundle: Path, spec: ModelSpec) -> Engine:
        return open_engine(bundle, spec, settings.engine)

    repository = Repository(settings.models_dir, lock_wait_s=LABELS_WAIT_S)
    loader = Loader(repository, registry, opened, wrap=metrics.time_engine, poll_s=settings.poll_s)
    registry.on_stale = loader.reload
    limits = Limits(
        max_horizon=settings.max_horizon,
        max_gap=settings.max_gap,
        max_clients=settings.max_clients,
        idle_ttl_s=settings.idle_ttl_s,
        adaptive_intervals=settings.adaptive_intervals,
    )
    http_limits = HttpLimits(
        settings.max_body_bytes,
        settings.max_history_bytes,
        settings.max_observations,
        settings.max_history,
        settings.max_items,
        bulk_at_once=1 if is_local(settings.state_url) else settings.threads,
    )
    locks, capacity, recent = ClientLocks(), Capacity(store, limits.max_clients, clock), Recent()
    served_now = ServedNow(registry, store, TENANT, loader.problems)
    observed = _observation_log(settings, clock, metrics)
    witnesses: list[Witness] = [metrics.live, PairedSums(sums), *(() if observed is None else (observed,))]
    told_many: list[WitnessesMany] = [metrics.sessions, metrics.live, *(() if observed is None else (observed,))]
    labels = RepositoryLabels(repository, loader)
    predictor = CountedPredictor(
        metrics.sessions, registry, store, clock, limits, locks=locks, capacity=capacity, witnesses=witnesses,
        recent=recent,
    )  # fmt: skip
    app = create_app(
        Collaborators(
            predictor=predictor,
            together=Together(predictor, registry, store, clock, limits, witnesses=told_many, recent=recent),
            mover=Mover(registry, store, locks, capacity, clock, limits),
            pinner=Pinner(registry, store, locks, clock, limits),
            labels=labels,
            evidence=repository.evidence,
            registry=registry,
            store=store,
            problems=loader.problems,
            count_items=metrics.count_items,
            exposition=lambda: metrics.exposition(served_now),
            limits=http_limits,
            admin_token=None if settings.admin_token is None else settings.admin_token.get_secret_value(),
        ),
        metrics.observe_request,
        access_log=settings.access_log,
        slow_request_s=settings.slow_request_s,
    )
    loader.refresh()
    sweeper = _sweeper(settings, registry, store, clock, metrics.sessions)
    drift_lease, every_s = Lease(store, "drift", clock), settings.drift_every_s
    drift = DriftWatch(registry, store, sums, drift_lease, clock, metrics.drift, settings.models_dir, every_s)
    terms = Terms(settings.promote, settings.promote_level, settings.promote_deadline_h)
    judge = Judge(registry, repository, labels, sums, Lease(store, "judge", clock), clock, metrics.trials, terms)
    parts = (sums, metrics, loader, sweeper, drift, judge, observed)
    background = tuple(each for each in parts if each is not None)
    for each in background:
        each.start()
    kinds = Kinds(http_limits, is_local(settings.state_url))
    service = Service(app, registry, store, loader, metrics, background, kinds)
    app.extensions["recurve"] = service
    return service


def _sweeper(
    settings: Settings, registry: Registry, store: StateStore, clock: Clock, sessions: Sessions
) -> Sweeper | None:
    """This process's sweeper, None over a store that can't be walked through."""
    if not isinstance(store, Scans):
        return None
    ttl_s, tombstone_s = settings.idle_ttl_s, settings.tombstone_s
    sweep = Sweep(registry, store, store, clock, idle_ttl_s=ttl_s, tombstone_s=tombstone_s)
    return Sweeper(sweep, Lease(store, "sweep", clock), sessions, settings.sweep_s)


def _observation_log(settings: Settings, clock: Clock, metrics: Metrics) -> ObservationLog | None:
    """This process's log, None where no model is logged."""
    models = settings.logged_models()
    if not models:
        return None
    return ObservationLog(settings.observations_dir / JOURNAL, models, clock, metrics.logged, settings.journal_s)


def why_no_store(settings: Settings) -> str | None:
    """What keeps the store from being opened, None if nothing does. It is closed again: a process opens its own."""
    try:
        open_store(settings.state_url).close()
    except StoreNotOpened as error:
        return str(error)
    return None
