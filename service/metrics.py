"""Prometheus metrics: ports are timed by wrapping them, requests by one hook; no metric has a client label.

prometheus_client decides when it is imported whether values live in this process or in the files of
PROMETHEUS_MULTIPROC_DIR, which the master sets before a worker starts. With files, any worker answers a
scrape for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.core.errors import StoreUnavailable
from service.core.ports import CountsClients, Engine, SavesMany, Scans, StateStore, Walks
from service.core.registry import Registry
from service.core.requests import Answer
from service.core.types import ModelSpec
from service.drift.metrics import DriftMetrics
from service.live import LiveErrorSums
from service.logged import LoggedObservations
from service.sessions import Adds, Sessions
from service.tally import Tally
from service.timing import (
    VERBS,
    TimedEngine,
    TimedStore,
    TimedVerb,
    TimedWalkingEngine,
    TimedWholeStore,
    WalkingEngine,
    WholeStore,
)
from service.trials import Trials

COUNTS_FOR_S = 10.0  # a count looks at the whole store
PREDICT_ROUTE = "/v1/models/<model>/clients/<client>/predict"

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))  # a stranger can make up others
_REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_STEP_BUCKETS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 0.01, 0.1)
_STORE_BUCKETS = (2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 0.01, 0.05, 0.25, 1.0, 2.5)
_RECORD_BUCKETS = (512, 1024, 2048, 4096, 6144, 8192, 12288, 16384, 32768, 65536, 131072)


class Collects(Protocol):
    """What a scrape asks for metrics."""

    def collect(self) -> Iterable[Metric]:
        """The metrics as they stand."""
        ...


class Metrics:
    """This process's instruments on a registry of their own; `shared_dir` is where all workers' values are."""

    def __init__(self, shared_dir: str | None = None) -> None:
        self._shared_dir = shared_dir
        self._registry = CollectorRegistry()
        self._tally = Tally()
        self._usual: dict[tuple[str, str, int, str, int | str], tuple[Adds, Adds | None]] = {}
        self._request_s = Histogram(
            "recurve_request_seconds",
            "Time to answer.",
            ["route", "method", "status"],
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._predicts = Counter(
            "recurve_predicts", "Predict requests answered.", ["model", "version", "status"], registry=self._registry
        )
        self._step_s = Histogram(
            "recurve_engine_step_seconds",
            "Time of one engine step, whatever its batch.",
            ["model", "version"],
            buckets=_STEP_BUCKETS,
            registry=self._registry,
        )
        self._store_s = Histogram(
            "recurve_store_seconds",
            "Time of a store's verb.",
            ["verb"],
            buckets=_STORE_BUCKETS,
            registry=self._registry,
        )
        self._store_errors = Counter(
            "recurve_store_errors", "Store verbs that failed.", ["verb"], registry=self._registry
        )
        self._conflicts = Counter(
            "recurve_store_conflicts", "Saves that another writer was ahead of.", registry=self._registry
        )
        self._record_bytes = Histogram(
            "recurve_record_bytes",
            "Size of the clients' records as they are saved.",
            ["model"],
            buckets=_RECORD_BUCKETS,
            registry=self._registry,
        )
        self.sessions = Sessions(self._registry, self._tally)
        self.logged = LoggedObservations(self._registry)
        self.live = LiveErrorSums(self._registry, self._tally)
        self.drift = DriftMetrics(self._registry)
        self.trials = Trials(self._registry, self._tally)

    def observe_request(self, route: str, method: str, status: int, seconds: float, answer: Answer | None) -> None:
        """Count one finished request. A model is named only by an answer, never by a path."""
        model, version = ("", "") if answer is None else (answer.spec.name, answer.version)
        request = route, method if method in _METHODS else "other", status, model, version
        known = self._usual.get(request)
        if known is None:
            known = self._usual[request] = self._instruments(*request)
        observe, add = known
        observe(seconds)
        if add is not None:
            add(1.0)

    def _instruments(
        self, route: str, method: str, status: int, model: str, version: int | str
    ) -> tuple[Adds, Adds | None]:
        """What times a request as this one, and counts it if it is a predict."""
        predicts = self._tally.counted(self._predicts, model, version, status).add if route == PREDICT_ROUTE else None
        return self._tally.timed(self._request_s, route, method, status).observe, predicts

    def count_items(self, model: str, version: int | str, status: int, items: int) -> None:
        """Count items of a bulk request, each as a predict; a model is named only by answers."""
        self._tally.counted(self._predicts, model, version, status).add(items)

    def start(self) -> None:
        """Settle the counts of this process every half second, until `stop`."""
        self._tally.start()

    def stop(self) -> None:
        """Settle what is left."""
        self._tally.stop()

    def time_engine(self, engine: Engine, spec: ModelSpec) -> Engine:
        """`engine`, its steps timed; one with every power keeps them."""
        step_s = self._tally.timed(self._step_s, spec.name, spec.version)
        if isinstance(engine, Walks):
            return TimedWalkingEngine(cast(WalkingEngine, engine), step_s)
        return TimedEngine(engine, step_s)

    def time_store(self, store: StateStore) -> StateStore:
        """`store`, its verbs timed; one with every power keeps them."""
        verbs = {verb: self._verb(verb) for verb in VERBS}
        conflicts = self._tally.counter(self._conflicts)
        if isinstance(store, CountsClients) and isinstance(store, Scans) and isinstance(store, SavesMany):
            return TimedWholeStore(cast(WholeStore, store), verbs, conflicts, self._observe_record)
        return TimedStore(store, verbs, conflicts, self._observe_record)

    def _observe_record(self, model: str, size: int, times: int) -> None:
        records = self._tally.timed(self._record_bytes, model)
        if times == 1:
            records.observe(size)
        else:
            records.observe_many(size, times)

    def _verb(self, verb: str) -> TimedVerb:
        return TimedVerb(self._tally.timed(self._store_s, verb), self._tally.counted(self._store_errors, verb))

    def exposition(self, *more: Collects) -> tuple[bytes, str]:
        """All metrics in the text format with its content type, those of every worker where there are several."""
        self._tally.settle()
        ours: Collects = self._registry
        if self._shared_dir is not None:
            ours = MultiProcessCollector(None, self._shared_dir)  # type: ignore[no-untyped-call]
        together = cast(CollectorRegistry, _Together([ours, *more]))
        return generate_latest(together), CONTENT_TYPE_LATEST


class ServedNow:
    """What is served, what could not be and how many clients are kept, looked up when a scrape asks, the counts at
    most every 10 s. `problems` tells what does not load in this process, as in /readyz."""

    def __init__(
        self,
        registry: Registry,
        store: StateStore,
        tenant: str,
        problems: Callable[[], Sequence[Mapping[str, Any]]] = list,
    ) -> None:
        self._registry = registry
        self._problems = problems
        self._counts = store if isinstance(store, CountsClients) else None
        self._tenant = tenant
        self._known: tuple[float, dict[str, int]] = (float("-inf"), {})

    def collect(self) -> Iterable[Metric]:
        """`recurve_model_info`, `recurve_interval_level`, `recurve_load_problems` and, over a store that can count,
        `recurve_clients`."""
        models = self._registry.models
        info = GaugeMetricFamily(
            "recurve_model_info", "Labels of served versions.", labels=["model", "label", "version"]
        )
        level = GaugeMetricFamily(
            "recurve_interval_level", "Share of observations that intervals are to cover.", labels=["model", "version"]
        )
        for name, model in sorted(models.items()):
            for label, version in sorted(model.labels.items()):
                info.add_metric([name, label, str(version)], 1)
            for version, served in sorted(model.versions.items()):
                if served.spec.level is not None:
                    level.add_metric([name, str(version)], served.spec.level)
        yield info
        yield level
        wrong = GaugeMetricFamily(
            "recurve_load_problems",
            "Published versions that do not load; without a version, models that can't be looked up.",
            labels=["model", "version"],
        )
        for problem in self._problems():
            wrong.add_metric([problem["model"], str(problem["version"] or "")], 1)
        yield wrong
        clients = GaugeMetricFamily("recurve_clients", "Clients kept, by model.", labels=["model"])
        for name, count in self._clients(sorted(models)).items():
            clients.add_metric([name], count)
        yield clients

    def _clients(self, names: Sequence[str]) -> Mapping[str, int]:
        if self._counts is None:
            return {}
        taken, counts = self._known
        if time.monotonic() - taken < COUNTS_FOR_S and set(names) == set(counts):
            return counts
        try:
            counts = {name: self._counts.count(self._tenant, name) for name in names}
        except StoreUnavailable:
            return {}
        self._known = (time.monotonic(), counts)
        return counts


class _Together:
    """Several collectors as one, which is all that `generate_latest` asks of a registry."""

    def __init__(self, collectors: Sequence[Collects]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterable[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


def forget_process(pid: int) -> None:
    """Drop what only made sense while the worker `pid` lived."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]
