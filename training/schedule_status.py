"""What the scheduler did and will do, in a file that it reads again when it starts."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.disk import replace_durably, try_lock
from training.refusals import TrainingError

log = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobStatus(_Part):
    """One model's runs. Times are in UTC; null for what has not happened yet.

    `last_success` is the end of the last run that did its work, whatever it decided; `last_published` of the last
    that published. `drift_answered`: the note of drift (its `at`) that a run has seen to. `cron` and `timezone` are
    what `next_run` was worked out from. `runs` counts by outcome.
    """

    cron: str = ""
    timezone: str = ""
    next_run: datetime | None = None
    running_since: datetime | None = None
    last_run: datetime | None = None
    last_reason: Literal["cron", "drift"] | None = None
    last_end: datetime | None = None
    last_outcome: str | None = None
    last_text: str = ""
    last_success: datetime | None = None
    last_published: datetime | None = None
    drift_answered: float | None = None
    runs: dict[str, int] = Field(default_factory=dict)


class _Document(_Part):
    format: Literal[1] = 1
    updated: datetime
    jobs: dict[str, JobStatus] = Field(default_factory=dict)


class StatusFile:
    """The status of every job by model name: in memory for readers, in the file at each change. For any thread.

    TrainingError if another scheduler writes the file. One that does not read is set aside, and all begins anew.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path, self._now, self._guard = path, now, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        held = try_lock(path.with_name(f".{path.name}.lock"), create=True)
        if held is None:
            raise TrainingError(
                f"another scheduler keeps its status in {path}; give this one a --status-file of its own"
            )
        self._held = held
        self._jobs: dict[str, JobStatus] = self._read()

    def close(self) -> None:
        """Another scheduler may have the file."""
        os.close(self._held)

    def of(self, name: str) -> JobStatus:
        """A model's status as it is now."""
        return self._jobs.get(name, JobStatus())

    def all(self) -> Mapping[str, JobStatus]:
        """Every model's."""
        with self._guard:
            return dict(self._jobs)

    def change(self, name: str, **changes: Any) -> JobStatus:
        """Set what changed of a model, here and in the file. A full disk is logged: it keeps nobody from training."""
        with self._guard:
            status = self.of(name).model_copy(update=changes)
            self._jobs[name] = status
            document = _Document(updated=self._now(), jobs=self._jobs)
            try:
                replace_durably(self._path, document.model_dump_json(indent=2).encode() + b"\n")
            except OSError as exc:
                log.warning("%s can't be written: %s", self._path, exc)
        return status

    def _read(self) -> dict[str, JobStatus]:
        try:
            jobs = _Document.model_validate_json(self._path.read_bytes()).jobs
        except FileNotFoundError:
            return {}
        except ValidationError:
            self._path.rename(self._path.with_name(f"{self._path.name}.unreadable"))
            return {}
        # of a scheduler that was killed: whatever ran then, it does not run for us
        return {name: each.model_copy(update={"running_since": None}) for name, each in jobs.items()}
