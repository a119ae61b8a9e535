"""gunicorn's configuration, from the service's settings. Used by `python -m service`, or with `gunicorn -c`.

Nothing of the service is built in the master: stores and engines are opened by each worker after the fork.
"""

# ruff: noqa: N999  # gunicorn wants this very name
from __future__ import annotations

import os
import sys
from typing import Any

from service.banner import banner
from service.logs import log_config
from service.server import master
from service.server.seats import Seats
from service.settings import SettingsInvalid, read_settings

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

master.name_metrics()


def on_starting(server: Any) -> None:
    """Before the socket is opened: fresh metrics; a clear word where another process has the port."""
    master.clear_metrics()
    if "GUNICORN_FD" not in os.environ and "LISTEN_FDS" not in os.environ:  # else the socket is handed over
        master.refuse_a_taken_port(settings)


def when_ready(server: Any) -> None:
    """The socket is open and no worker forked yet: they inherit what is imported now and so start fast.

    Nothing that lives on is built here but the workers' seats, and no runtime is imported; that is the workers' own.
    """
    from service.bootstrap import why_no_store

    trouble = why_no_store(settings)
    if trouble is not None:
        master.give_up(trouble)
    server.seats = Seats()
    print(banner(settings), flush=True)


def pre_fork(server: Any, worker: Any) -> None:
    """A worker is about to begin: it gets its seat among the others."""
    worker.seat = server.seats.take()


def child_exit(server: Any, worker: Any) -> None:
    """A worker ended: its seat is free. What it alone could report, such as gauges, goes; what it counted stays."""
    from service.metrics import forget_process

    server.seats.give_back(worker.seat)
    forget_process(worker.pid)


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker, at its end."""
    app = getattr(worker, "wsgi", None)  # None: the worker failed before it had one
    service = getattr(app, "extensions", {}).get("recurve")
    if service is not None:
        service.close()


def on_exit(server: Any) -> None:
    """The master ends."""
    master.drop_metrics()
