"""Drift as metrics; no metric names a client."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class DriftMetrics:
    """The instruments, on `registry`. Looks are minutes apart: nothing is tallied."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stands = Gauge(
            "recurve_drift",
            "1 while a growth of the served version's live errors stands.",
            ["model"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._noticed = Counter("recurve_drifts", "Growths of live errors noticed.", ["model"], registry=registry)

    def observe_drift(self, model: str, *, stands: bool, new: bool) -> None:
        """See ObservesDrift."""
        self._stands.labels(model).set(stands)
        self._noticed.labels(model).inc(new)
