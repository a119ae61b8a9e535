"""What the process that starts the workers sees to, whichever server it runs: the folder of metrics, the port."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from typing import NoReturn

from service.settings import METRICS_DIR, Settings

_OURS = "recurve-metrics-"
_MINE = f"{_OURS}{os.getpid()}-"  # as it was named at first: a master that becomes a daemon has another id afterwards


def name_metrics() -> None:
    """Name the folder of this master's metrics, before prometheus_client is first imported, which looks for the name.

    A folder that the operator names is used as it is; else each master has its own, also one that took over from
    another (SIGUSR2).
    """
    given = os.path.basename(os.environ.get(METRICS_DIR, _OURS))
    if given.startswith(_OURS) and not given.startswith(_MINE):
        os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix=_MINE)


def clear_metrics() -> None:
    """The named folder as a start finds it: there, and without values of processes before."""
    folder = os.environ[METRICS_DIR]
    os.makedirs(folder, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.name.endswith(".db"):
            os.unlink(entry.path)


def drop_metrics() -> None:
    """Remove the folder, unless the operator named it."""
    if os.path.basename(os.environ[METRICS_DIR]).startswith(_MINE):
        shutil.rmtree(os.environ[METRICS_DIR], ignore_errors=True)


def refuse_a_taken_port(settings: Settings) -> None:
    """End with a clear word if another process listens where we are to."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            give_up(
                f"can't listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Is another service running there? Choose another with --port or RECURVE_PORT."
            )


def give_up(why: str) -> NoReturn:
    """End before anything is served; `why` is a sentence for the operator."""
    drop_metrics()
    sys.exit(f"recurve: {why}")
