"""What we change of gunicorn: how it is started, how its worker stops, what its logger leaves to us."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import selectors
import socket
import ssl
import sys
import threading
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.http.body import ChunkedReader
from gunicorn.workers.gthread import ThreadWorker

from service.logs import request_id
from service.settings import read_settings
from service.sockets import PatientSocket, Stalled, Turn

log = logging.getLogger("recurve.server")

LINGER_S = 0.001
CONF = Path(__file__).with_name("gunicorn.conf.py")


# What `Worker.handle` says besides gunicorn's own words.
_CLOSED, _AGAIN = object(), object()

# What the answer to a request that can't be read is, the first kind that fits.
_REFUSED: dict[type[Exception], HTTPStatus] = {
    Stalled: HTTPStatus.REQUEST_TIMEOUT,
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ForbiddenProxyRequest: HTTPStatus.FORBIDDEN,
    errors.ParseException: HTTPStatus.BAD_REQUEST,
}
_SAID = 300  # characters of what is wrong: it repeats what the client sent


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

    Requests are answered in turns (`service.sockets.Turn`): only one thread works at a time, as the interpreter has it
    anyway, but without handing its lock around at every system call, which cost more than a third.

    Its connections are PatientSockets: no client can hold a thread by sending slowly. They are closed by the thread
    that served them: gunicorn's own lingers in the main loop, up to two seconds for a client that does not close.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_s = read_settings().read_timeout_s
        self._turns = threading.Lock()

    def enqueue_req(self, conn: Any) -> None:
        """In the main loop: a connection for the threads, a new one once its first byte is there.

        gunicorn's own gives it a thread at once, which then waits five seconds for that byte.
        """
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: Any) -> Any:
        """Requests of one connection, until it falls idle or others wait; what the main loop has to do with it then:
        True keep it, _AGAIN more is read already, _CLOSED nothing, or gunicorn's own word to wait for its data."""
        if type(conn.sock) is socket.socket:
            conn.sock = PatientSocket(conn.sock, self._patience_s, lambda: not self.alive)
        while True:
            request_id.set(None)  # until a request has its own: the last one's is of no concern to what is logged
            patient = conn.sock if isinstance(conn.sock, PatientSocket) else None  # under TLS it is none
            if patient is not None:
                patient.await_request()
            result = super().handle(conn)
            if result is False:
                if patient is not None and patient.stalled and patient.request is None:
                    self.handle_error(None, patient, conn.client, Stalled())
                conn.close(graceful=True)
                return _CLOSED
            if result is not True or not self.alive or conn.is_http2:
                return result
            more = conn.parser.unreader.buf.getbuffer().nbytes > 0  # pipelined: the socket will not tell of it
            if self.tpool._work_queue.qsize() > 0:
                return _AGAIN if more else result
            if not more and not _follows(conn.sock):
                return result

    def handle_request(self, req: Any, conn: Any) -> Any:
        """One request whose head is read, in its turn."""
        turn = Turn(self._turns)
        if isinstance(conn.sock, PatientSocket):
            conn.sock.request, conn.sock.turn = req, turn
        if isinstance(req.body.reader, ChunkedReader):
            req.body.reader = _Chunks(req.body.reader)
        turn.take()
        try:
            return super().handle_request(req, conn)
        finally:
            turn.give()

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """In the main loop, what `handle` said is to be done."""
        result = None if fs.cancelled() or fs.exception() is not None else fs.result()
        if result is _CLOSED:
            self.nr_conns -= 1
        elif result is _AGAIN and self.alive:
            self.enqueue_req(conn)
        else:
            super().finish_request(conn, fs)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answers what never became a request, as the service answers all errors, under an id of its own."""
        if isinstance(exc, ssl.SSLError):
            super().handle_error(req, client, addr, exc)
            return
        request_id.set(os.urandom(8).hex())
        status = next((status for kind, status in _REFUSED.items() if isinstance(exc, kind)), None)
        if status is None:
            log.error("a request failed", exc_info=exc)
            status, detail = HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed on this request; its log tells why"
        else:
            detail = str(exc) if isinstance(exc, errors.ParseException) else "the request did not arrive in time"
            log.info("refused: %s", detail[:_SAID], extra={"status": int(status)})
        with contextlib.suppress(OSError):  # it went away
            util.write_nonblock(client, _problem(status, detail[:_SAID]))

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: accept nothing more, finish what is under way."""
        super().handle_exit(sig, frame)
        self.method_queue.defer(self._close_idle)  # run by the main loop, which owns these connections

    def _close_idle(self) -> None:
        """Those that have sent something are left to the main loop, which may have heard of it in this very round."""
        for connections in (self.keepalived_conns, self.pending_conns):
            for connection in list(connections):
                if _readable(connection.sock):
                    continue
                connections.remove(connection)
                self.poller.unregister(connection.sock)
                self.nr_conns -= 1
                connection.close()


class _Chunks:
    """A chunked body whose trailers, if they are none, break it like any other of its parts: with an OSError."""

    def __init__(self, inner: ChunkedReader) -> None:
        self._inner = inner

    def read(self, size: int) -> Any:
        """As of any reader."""
        try:
            return self._inner.read(size)
        except errors.ParseException as error:
            raise OSError(str(error)) from error


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


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


def _problem(status: HTTPStatus, detail: str) -> bytes:
    """A whole answer: `http.errors.problem` for where there is no application yet."""
    current = request_id.get()
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "error": detail,
        "request_id": current,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nConnection: close\r\nX-Request-Id: {current}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class ErrorLogger(Logger):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn's logger without an access log: `http.hooks` writes that, with request ids, and only if it is asked to.

    gunicorn would format a line for every request as soon as its logging is configured at all.
    """

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing."""
