"""Training jobs again when they are due: by the clock, and when the service notes drift."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from models.drift import read_drift
from models.errors import RepositoryError
from models.labels import STABLE
from models.repository import Repository
from training.cron import trigger_of
from training.decision import EXIT_CODES, Outcome
from training.job import Job
from training.runs import Ran
from training.schedule_status import JobStatus, StatusFile
from training.tables import Schedule

log = logging.getLogger("training.schedule")
WORKED: tuple[Outcome, ...] = ("published", "rejected", "nothing_new")
Reason = Literal["cron", "drift"]
SOON = timedelta(seconds=5)  # no plan is moved to so soon: a run that has just begun must not be planned anew


class Runner(Protocol):
    """Runs commands of `python -m training`, one after another, and can stop them."""

    def run(self, commands: Sequence[Sequence[str]]) -> Ran: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A job with a schedule, and the commands that train it again."""

    job: Job
    schedule: Schedule
    commands: tuple[tuple[str, ...], ...]


class Scheduler:
    """Runs each planned job when it is due, one run per model and `parallel` in all at a time.

    A run that was due while no scheduler ran, or that a stop cut short, begins at the start, once, unless it is later
    than its grace.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
        repository: Repository,
        status: StatusFile,
        runner: Runner,
        now: Callable[[], datetime],
        *,
        parallel: int = 1,
    ) -> None:
        self._planned = {each.job.name: each for each in planned}
        self._repository, self._status, self._runner, self._now = repository, status, runner, now
        self._room = threading.Semaphore(parallel)
        self._alone = {name: threading.Lock() for name in self._planned}
        self._stopping = False
        executors = {"default": ThreadPoolExecutor(2 * len(self._planned))}
        self._clock = BackgroundScheduler(executors=executors, timezone="UTC")

    def start(self) -> None:
        """Plan every job and begin."""
        for name, each in self._planned.items():
            self._clock.add_job(
                self.run,
                trigger_of(each.schedule),
                (name, "cron"),
                id=name,
                next_run_time=self._due(self._status.of(name), each.schedule),
                coalesce=True,
                misfire_grace_time=each.schedule.misfire_grace_s,
                max_instances=2,  # the second one finds the first and leaves
            )
        self._clock.start()
        for name in self._planned:
            self._note_next(name)

    def stop(self) -> None:
        """End what runs, and return when it has ended."""
        self._stopping = True
        self._runner.stop()
        if self._clock.running:
            self._clock.shutdown(wait=True)

    def look(self) -> None:
        """Begin runs for drift that was noted and not answered yet, and write down what is due next.

        Also sees to what is due where the clock was set, or the machine slept: the library's timer knows nothing of it.
        """
        for name, each in self._planned.items():
            self._plan_anew(name, each.schedule)
            self._note_next(name)
            if each.schedule.on_drift and self._drifted(name, each.schedule):
                self._clock.add_job(
                    self.run, args=(name, "drift"), id=f"{name} drift", replace_existing=True, misfire_grace_time=None
                )

        self._clock.wakeup()

    def busy(self, name: str) -> bool:
        """Whether a run of this model is under way or waits for room."""
        return self._alone[name].locked()

    def run(self, name: str, reason: Reason) -> None:
        """One run, unless one of this model is under way or waits for room."""
        if not self._alone[name].acquire(blocking=False):
            log.info("%s is being trained already", name)
            return
        try:
            with self._room:
                if self._stopping:
                    self._left(name, reason)
                else:
                    self._run(name, reason)
        finally:
            self._alone[name].release()

    def _run(self, name: str, reason: Reason) -> None:
        began, drift = self._now(), read_drift(self._repository.root / name)
        self._status.change(name, running_since=began, last_run=began, last_reason=reason)
        log.info("training %s again (%s)", name, reason)
        try:
            ran = self._runner.run(self._planned[name].commands)
        except OSError as exc:
            ran = Ran("error", f"it can't be started: {exc}")
        log.info("%s ended (%s): %s", name, ran.outcome, ran.text)
        before, ended = self._status.of(name), self._now()
        outcome = ran.outcome if ran.outcome in EXIT_CODES else "crashed"  # label values stay few
        self._status.change(
            name,
            running_since=None,
            last_end=ended,
            last_outcome=outcome,
            last_text=ran.text,
            last_success=ended if outcome in WORKED else before.last_success,
            last_published=ended if outcome == "published" else before.last_published,
            drift_answered=drift.at if drift and outcome in ("published", "rejected") else before.drift_answered,
            runs={**before.runs, outcome: before.runs.get(outcome, 0) + 1},
        )

    def _left(self, name: str, reason: Reason) -> None:
        """A run that was due and never began, because the scheduler stops: the next start sees to it."""
        text = "the scheduler stopped before it began"
        self._status.change(name, last_end=self._now(), last_reason=reason, last_outcome="interrupted", last_text=text)

    def _due(self, known: JobStatus, schedule: Schedule) -> datetime:
        """When a job is due first: what the last scheduler left undone, else what it planned, if that holds."""
        coming: datetime = trigger_of(schedule).get_next_fire_time(None, self._now())
        if known.next_run is None or (known.cron, known.timezone) != (schedule.cron, schedule.timezone):
            return coming
        due = min(known.next_run, coming)  # planned by a clock that was ahead, it would be due late
        if known.last_outcome == "interrupted" and known.last_end is not None:
            due = min(due, known.last_end)
        return due

    def _plan_anew(self, name: str, schedule: Schedule) -> None:
        """Replace a plan that a clock which was ahead has made."""
        found = self._clock.get_job(name)  # before the time is read: a run that begins in between was due by then
        now = self._now()
        coming = trigger_of(schedule.model_copy(update={"jitter_s": 0})).get_next_fire_time(None, now)
        if found is None or coming - now < SOON:
            return
        if found.next_run_time > coming + timedelta(seconds=schedule.jitter_s):
            log.info("%s is planned anew: the clock was set back", name)
            self._clock.modify_job(name, next_run_time=coming)

    def _drifted(self, name: str, schedule: Schedule) -> bool:
        """Whether there is drift of the version that is served, unanswered, and no run too short a while ago. What a
        clock that was ahead has left behind hides nothing."""
        drift, known, now = read_drift(self._repository.root / name), self._status.of(name), self._now()
        if drift is None or self.busy(name):
            return False
        answered = known.drift_answered or 0.0
        if drift.at == answered or drift.at < answered <= now.timestamp():
            return False
        try:
            if self._repository.labels(name).labels.get(STABLE) != drift.version:
                return False
        except (RepositoryError, OSError) as exc:
            log.warning("%s: %s", name, exc)
            return False
        cooled = timedelta(seconds=schedule.cool_down_s)
        return known.last_run is None or not known.last_run <= now < known.last_run + cooled

    def _note_next(self, name: str) -> JobStatus:
        schedule, found, known = self._planned[name].schedule, self._clock.get_job(name), self._status.of(name)
        due = None if found is None else found.next_run_time.astimezone(UTC)
        said = {"next_run": due, "cron": schedule.cron, "timezone": schedule.timezone}
        if said == {key: getattr(known, key) for key in said}:
            return known
        return self._status.change(name, **said)
