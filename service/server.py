"""What we change of gunicorn: how it is started, how its worker stops, what its logger leaves to us."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

LINGER_S = 0.001
CONF = Path(__file__).with_name("gunicorn.conf.py")


class Server(WSGIApplication):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn in this very process, under gunicorn.conf.py. GUNICORN_CMD_ARGS counts, the command line does not."""

    def load_config(self) -> None:
        """At the start, and again at SIGHUP."""
        ours, sys.argv = sys.argv, ["gunicorn", "-c", f"file:{CONF}"]
        try:
            super().load_config()
        finally:
            sys.argv = ours


def serve() -> None:
    """Serve as the environment says until a signal ends it; does not return."""
    server = Server()
    sys.argv = ["-m", "service"]  # how gunicorn starts its successor at SIGUSR2, all settings being in the environment
    server.run()


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn publishes no types
    """A gthread worker that closes idle keep-alive connections as soon as it is asked to stop.

    gunicorn's own counts them as under way and waits out the graceful timeout for each that stays open.

    A thread stays with its connection while nobody waits for a thread and the next request follows at once. Between
    two requests gunicorn's own hands each connection to the main loop and back, two switches of threads under the
    interpreter lock, which cost more than our work does.
    """

    def handle(self, conn: Any) -> Any:
        """Requests of one connection, until it falls idle or others wait; what the main loop has to do with it then."""
        while True:
            result = super().handle(conn)
            if result is not True or not self.alive or conn.is_http2 or self.tpool._work_queue.qsize() > 0:
                return result
            if not _follows(conn.sock):
                return result

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: accept nothing more, finish what is under way."""
        super().handle_exit(sig, frame)
        self.method_queue.defer(self._close_idle)  # run by the main loop, which owns these connections

    def _close_idle(self) -> None:
        for connections in (self.keepalived_conns, self.pending_conns):
            while connections:
                connection = connections.popleft()
                self.poller.unregister(connection.sock)
                self.nr_conns -= 1
                connection.close()


def _follows(sock: socket.socket) -> bool:
    """Whether there is more to read on `sock` within a moment (or its end, which a read will find)."""
    sock.settimeout(LINGER_S)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        sock.setblocking(True)
    return True


class ErrorLogger(Logger):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn's logger without an access log: `http.hooks` writes that, with request ids, and only if it is asked to.

    gunicorn would format a line for every request as soon as its logging is configured at all.
    """

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing."""
