"""The scheduler's status as Prometheus metrics: counters and times go on over restarts, as the file does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from training.schedule_status import StatusFile

TIMES = {
    "last_run": "When the last run began.",
    "last_success": "When the last run ended that did its work, whatever it decided.",
    "last_published": "When the last run ended that published a version.",
    "next_run": "When the next run is due.",
}


class ScheduleCollector(Collector):
    """Reads the status when asked: nothing is kept twice."""

    def __init__(self, status: StatusFile) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """The metrics now, by model."""
        jobs = self._status.all()
        for field, text in TIMES.items():
            gauge = GaugeMetricFamily(f"recurve_retrain_{field}_timestamp_seconds", text, labels=["model"])
            for name, status in jobs.items():
                at: datetime | None = getattr(status, field)
                if at is not None:
                    gauge.add_metric([name], at.timestamp())
            yield gauge
        running = GaugeMetricFamily("recurve_retrain_running", "Whether a run is under way.", labels=["model"])
        runs = CounterMetricFamily("recurve_retrain_runs", "Runs that have ended.", labels=["model", "outcome"])
        for name, status in jobs.items():
            running.add_metric([name], float(status.running_since is not None))
            for outcome, count in status.runs.items():
                runs.add_metric([name, outcome], count)
        yield running
        yield runs


def serve_metrics(status: StatusFile, host: str, port: int) -> None:
    """Answer GET /metrics on host:port from a thread of its own. OSError if the port is taken."""
    registry = CollectorRegistry()
    registry.register(ScheduleCollector(status))
    start_http_server(port, addr=host, registry=registry)
