"""The detector in a process of its own, which ends with its answer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

LASTS_S = 120.0  # on a busy machine; it takes two
_ROOT = Path(__file__).resolve().parents[2]

Shares = Mapping[str, Sequence[float]]
Changes = Mapping[str, Sequence[tuple[int, int]]]  # see detector.changes


class DetectorFailed(Exception):
    """The detector's process did not answer; the message says why."""


class DetectorApart:
    """Asks a new process each time. For one thread; `stop` for any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def __call__(self, series: Shares) -> Changes:
        """What `detector.changes` says of each series. DetectorFailed if it can't be told."""
        asked = json.dumps({"series": {name: list(values) for name, values in series.items()}})
        pipe = subprocess.PIPE
        try:
            with self._lock:
                if self._stopped:
                    raise DetectorFailed("stopped")
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", "service.drift"], cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
                )
            with process:
                try:
                    answer, complaint = process.communicate(asked, timeout=LASTS_S)
                finally:
                    process.kill()  # it has ended, or took too long
            if process.returncode != 0:
                raise DetectorFailed(complaint.strip()[-500:] or f"exit code {process.returncode}")
            changes: Changes = json.loads(answer)["changes"]
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            raise DetectorFailed(str(error)) from error
        return changes

    def stop(self) -> None:
        """End a process under way; none is started from now on."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
