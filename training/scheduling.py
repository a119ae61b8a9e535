"""The `schedule` command: from job files to a scheduler that runs until it is stopped."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from models.repository import Repository
from training.job import load_job
from training.refusals import TrainingError
from training.runs import Runs
from training.schedule import Planned, Scheduler
from training.schedule_metrics import serve_metrics
from training.schedule_status import StatusFile

LOOK_S = 2.0  # how soon drift is noticed, and the status tells what is due next


def plan(jobs: Sequence[str], models_dir: Path, cache: Path) -> list[Planned]:
    """The jobs, each with what is run for it. JobInvalid; TrainingError for one without a schedule, and for twins."""
    planned: dict[str, Planned] = {}
    for each in jobs:
        job = load_job(each)
        if job.schedule is None:
            raise TrainingError(f"{each} has no [schedule] table: add one, such as cron = '0 3 * * *'")
        if job.name in planned:
            raise TrainingError(f"{each}: another of these jobs trains {job.name} already")
        again = ("retrain", each, "--json", "--models-dir", str(models_dir), "--cache", str(cache))
        planned[job.name] = Planned(job, job.schedule, (again,))
    return list(planned.values())


def run_until_stopped(
    planned: Sequence[Planned],
    repository: Repository,
    status_file: Path,
    *,
    metrics: tuple[str, int] | None,
    parallel: int,
) -> None:
    """Serve `metrics` (host, port) and run what is due, until SIGTERM or Ctrl-C; then end it, and return.

    TrainingError if another scheduler has the status file, or something else the port.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)  # what it does is told by us
    status = StatusFile(status_file, _now)
    if metrics is not None:
        try:
            serve_metrics(status, *metrics)
        except OSError as exc:
            host, port = metrics
            raise TrainingError(f"can't listen on {host}:{port} ({exc.strerror}); see --metrics-port") from exc
    scheduler = Scheduler(planned, repository, status, Runs(), _now, parallel=parallel)
    try:
        scheduler.start()
        never = threading.Event()
        while not never.wait(LOOK_S):
            scheduler.look()
    except KeyboardInterrupt:
        logging.getLogger(__name__).info("stopping")
    finally:
        scheduler.stop()
        status.close()


def _now() -> datetime:
    return datetime.now(UTC)
