"""Runs of `retrain` as processes of their own: memory goes back when they end, and a crash ends nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

STOP_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended: one of `retrain`'s outcomes, or `crashed` for a process that could not say."""

    outcome: str
    text: str


class Runs:
    """Starts commands and can stop them all. For any thread."""

    def __init__(self) -> None:
        self._guard, self._stopping = threading.Lock(), False
        self._living: set[subprocess.Popen[str]] = set()

    def run(self, commands: Sequence[Sequence[str]]) -> Ran:
        """Run `python -m training` with each of these arguments, until one fails; what the last one said of itself."""
        ran = Ran("interrupted", "the scheduler stops")
        for arguments in commands:
            process = self._start([sys.executable, "-m", "training", *arguments])
            if process is None:
                return ran
            try:
                out, _ = process.communicate()
            finally:
                with self._guard:
                    self._living.discard(process)
            ran = _told(process.returncode, out)
            if process.returncode != 0:
                break
        return ran

    def stop(self) -> None:
        """Ask what runs to stop, wait for it, and kill what has not ended after a minute; nothing begins any more."""
        with self._guard:
            self._stopping = True
            living = list(self._living)
        for process in living:
            _signal(process, signal.SIGTERM)
        for process in living:
            try:
                process.wait(STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str] | None:
        with self._guard:
            if self._stopping:
                return None
            # a session of its own: Ctrl-C is for us, and we pass on what it means
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True
            )
            self._living.add(process)
            return process


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _told(code: int, out: str) -> Ran:
    try:
        said = json.loads(out.strip().splitlines()[-1])
        return Ran(str(said["outcome"]), str(said["text"]))
    except (LookupError, ValueError, TypeError):
        if code < 0:
            return Ran("crashed", f"it ended by signal {-code} without a word")
        return Ran("error", f"it ended with exit code {code}; the log says why")
