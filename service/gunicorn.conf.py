"""gunicorn's configuration, from the service's settings. Used by `python -m service`, or with `gunicorn -c`.

Nothing of the service is built in the master: stores and engines are opened by each worker after the fork.
"""

# ruff: noqa: N999  # gunicorn wants this very name
from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from typing import Any, NoReturn

from service.banner import banner
from service.logs import log_config
from service.settings import METRICS_DIR, SettingsInvalid, read_settings

try:
    settings = read_settings()
except SettingsInvalid as error:
    sys.exit(f"recurve: {error}")

wsgi_app = "service.wsgi:application()"
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
worker_class = "service.server.worker.Worker"
logger_class = "service.server.start.ErrorLogger"
workers = settings.workers
threads = settings.threads
keepalive = settings.keepalive_s
graceful_timeout = settings.graceful_timeout_s
timeout = 60  # a worker whose main loop is stuck this long is replaced
preload_app = False
control_socket_disable = True  # its file would need a writable home
logconfig_dict = log_config(settings.log_level)
loglevel = settings.log_level

# prometheus_client looks for this when it is first imported, in the workers. A folder that the operator names is
# used as it is; else each master has its own, also one that took over from another (SIGUSR2).
_OURS = "recurve-metrics-"
_MINE = f"{_OURS}{os.getpid()}-"
_given = os.path.basename(os.environ.get(METRICS_DIR, _OURS))
if _given.startswith(_OURS) and not _given.startswith(_MINE):
    os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix=_MINE)


def on_starting(server: Any) -> None:
    """Before the socket is opened: fresh metrics; a clear word where another process has the port."""
    folder = os.environ[METRICS_DIR]
    os.makedirs(folder, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.name.endswith(".db"):
            os.unlink(entry.path)
    if "GUNICORN_FD" not in os.environ and "LISTEN_FDS" not in os.environ:  # else the socket is handed over
        _refuse_a_taken_port()


def when_ready(server: Any) -> None:
    """The socket is open and no worker forked yet: they inherit what is imported now and so start fast.

    Nothing that lives on is built here, and no runtime is imported; both are the workers' own.
    """
    from service.bootstrap import why_no_store

    trouble = why_no_store(settings)
    if trouble is not None:
        _give_up(trouble)
    print(banner(settings), flush=True)


def child_exit(server: Any, worker: Any) -> None:
    """A worker ended: what it alone could report, such as gauges, goes; what it counted stays."""
    from service.metrics import forget_process

    forget_process(worker.pid)


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker, at its end."""
    app = getattr(worker, "wsgi", None)  # None: the worker failed before it had one
    service = getattr(app, "extensions", {}).get("recurve")
    if service is not None:
        service.close()


def on_exit(server: Any) -> None:
    """The master ends."""
    _drop_metrics()


def _drop_metrics() -> None:
    if os.path.basename(os.environ[METRICS_DIR]).startswith(_MINE):
        shutil.rmtree(os.environ[METRICS_DIR], ignore_errors=True)


def _refuse_a_taken_port() -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            _give_up(
                f"can't listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Is another service running there? Choose another with --port or RECURVE_PORT."
            )


def _give_up(why: str) -> NoReturn:
    _drop_metrics()
    sys.exit(f"recurve: {why}")
