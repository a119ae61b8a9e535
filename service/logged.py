"""Metrics of the observation log."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class LoggedObservations:
    """The instruments, on `registry`. Both are counted once a second, by the thread that writes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._logged = Counter(
            "recurve_observations_logged", "Observations that are in the observation log.", registry=registry
        )
        self._lost = Counter(
            "recurve_observations_lost",
            "Observations that could not be logged: the disk was full or away for too long.",
            registry=registry,
        )

    def observe_logged(self, rows: int) -> None:
        """So many are on the medium."""
        self._logged.inc(rows)

    def observe_lost(self, rows: int) -> None:
        """So many will never be."""
        self._lost.inc(rows)
