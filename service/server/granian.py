"""granian in this very process, instead of gunicorn: how it is started, and what its workers load.

granian reads and writes in threads of its own, in Rust; one thread of Python's answers, one request after another. That
makes it fast for short predicts: several would pass the interpreter lock around at every request.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from service.banner import banner
from service.logs import log_config, request_id
from service.server import master, process
from service.settings import METRICS_DIR, Settings, read_settings

log = logging.getLogger("recurve.server")

THREADS = 1  # that answer; see above
WATCH_S = 0.5  # between a worker's looks at whether its master is there

App = Callable[..., Iterable[bytes]]


def serve() -> None:
    """Serve as the environment says until a signal ends it."""
    settings = read_settings()
    master.name_metrics()
    master.clear_metrics()
    master.refuse_a_taken_port(settings)  # each worker opens it for itself, and would share it with a stranger
    server = Granian(
        "service.wsgi",  # its name; what is loaded is `application`, below
        address=_address(settings.host),
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        http1_settings=_http1(settings),
        websockets=False,
        workers=settings.workers,
        blocking_threads=THREADS,
        respawn_failed_workers=True,
        workers_kill_timeout=settings.graceful_timeout_s,
        log_level=LogLevels(settings.log_level),
        log_dictconfig=log_config(settings.log_level),
    )
    server.on_startup(lambda: _before_workers(settings))
    try:
        server.serve(target_loader=partial(application, os.getpid()), wrap_loader=False)
    except SystemExit:
        if not server.interrupt_signal:  # else its workers were asked to end as well, as by Ctrl-C, which it finds odd
            raise
    finally:
        master.drop_metrics()


def application(parent: int) -> App:
    """In a worker of the master `parent`, before it opens the port: the application, and what goes with it."""
    asked = threading.Event()  # to end: granian listens for signals only when this is done
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    if getattr(getattr(before, "__self__", None), "interrupt_signal", False):
        asked.set()  # since the fork it took signals as the master does
    watched = (parent, asked, read_settings().graceful_timeout_s)
    threading.Thread(target=_watch, args=watched, name="recurve-watch", daemon=True).start()
    from service.metrics import forget_process
    from service.wsgi import application as built

    _forget_the_dead(forget_process)
    app = built()
    service = app.extensions["recurve"]

    def end() -> None:
        service.close()
        forget_process(os.getpid())

    Finalize(None, end, exitpriority=0)  # once granian is through with the last request
    process.settle()
    return _answering(app)


def _answering(app: App) -> App:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request_id.set(None)  # until it has its own: the last one's is of no concern to what is logged
        parts = app(environ, start_response)
        return list(parts) if isinstance(parts, tuple) else parts  # a list goes out as it is, all else part by part

    return answer


def _address(host: str) -> str:
    """Where `host` is: granian knows no names."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return str(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)[0][4][0])


def _http1(settings: Settings) -> HTTP1Settings:
    """The wait for a request's head begins with the end of the one before."""
    wait_s = max(settings.keepalive_s, settings.read_timeout_s)
    return HTTP1Settings(keep_alive=settings.keepalive_s > 0, header_read_timeout=round(wait_s * 1000))


def _before_workers(settings: Settings) -> None:
    """The port is free and no worker forked yet: they inherit what is imported now, and nothing that lives on."""
    from service.bootstrap import why_no_store

    trouble = why_no_store(settings)
    if trouble is not None:
        master.give_up(trouble)
    print(banner(settings), flush=True)


def _watch(parent: int, asked: threading.Event, graceful_s: float) -> None:
    """End this worker once its master is gone, or when it was asked to end before granian could hear it."""
    while os.getppid() == parent and not asked.wait(WATCH_S):
        pass
    if not asked.is_set():
        log.info("the master is gone; this worker ends too")
    deadline = time.monotonic() + graceful_s
    while time.monotonic() < deadline:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _forget_the_dead(forget: Callable[[int], None]) -> None:
    """granian tells nobody that a worker was killed; the one that comes in its place sees to what it left."""
    for name in os.listdir(os.environ[METRICS_DIR]):
        found = re.fullmatch(r".*_(\d+)\.db", name)
        if found is not None and not _lives(int(found[1])):
            with suppress(FileNotFoundError):  # another that starts now was faster
                forget(int(found[1]))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
