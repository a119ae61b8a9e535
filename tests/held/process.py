"""Processes that are held at a moment, and ended there."""

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.serving import ROOT, wait_until

BOUND_S = 60.0


@contextmanager
def held(hold_at, command):
    """The command as a process, stopped at the moment `hold_at`, see sitecustomize; killed after the block."""
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    environment = os.environ | {"HOLD_AT": hold_at, "PYTHONPATH": path}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: _state(process) in "TZ", BOUND_S, f"the moment {hold_at}")
            if _state(process) == "Z":
                raise AssertionError(f"it ended before the moment {hold_at}: {process.communicate()}")
            yield process
        finally:
            process.kill()


def stop(process, how):
    """Sends a signal to a process, held or not; its exit code and what it said on stderr."""
    process.send_signal(how)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=BOUND_S)
    return process.returncode, errors


def _state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
