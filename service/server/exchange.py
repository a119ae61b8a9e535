"""One request, from its head to the bytes of its answer: WSGI's side of a connection (PEP 3333)."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from service.logs import request_id
from service.server.inlet import Inlet
from service.server.refusal import FAILED

log = logging.getLogger("recurve.server")

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]

_NAMES: dict[bytes, str | None] = {}  # header names as environ has them; those seen are few
_NAMES_MAX = 1000
_NAME_BYTES = 64  # of a name that is remembered


class Exchange:
    """A request while it arrives. `over`: its body is more than `limit` bytes, of which only the first are kept."""

    __slots__ = (
        "_body", "complete", "environ", "fields", "handed", "inlet", "keep_alive", "limit", "over", "size", "url",
    )  # fmt: skip

    def __init__(self, base: Environ) -> None:
        self.environ = base.copy()
        self.url = b""
        self.fields = 0
        self.limit = 0
        self.size = 0
        self.over = False
        self.keep_alive = True
        self.complete = False  # all of it has arrived
        self.handed = False  # it is with the application, or answered
        self.inlet: Inlet | None = None  # where its body goes that may be of any length, while it is wanted
        # not a list: what comes in pieces of two bytes would take twenty times as much
        self._body: bytes | bytearray = bytearray()

    def add_header(self, name: bytes, value: bytes) -> int:
        """A header line; how many there are now. A name with an underscore would pass for another, and is dropped."""
        self.fields += 1
        try:
            key = _NAMES[name]
        except KeyError:
            key = _environ_name(name)
        if key is not None:
            environ, text = self.environ, value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        return self.fields

    def end_head(self, method: bytes, version: str, keep_alive: bool, limits: Callable[[str], int]) -> None:
        """All headers are there; `limits` says how much body the application takes, by method."""
        environ = self.environ
        url = self.url.decode("latin-1")
        path, _, query = self.url.partition(b"?")
        if path[:1] != b"/" and path != b"*":  # http://host/path
            path = httptools.parse_url(self.url).path or b"/"
        environ["RAW_URI"] = url
        environ["REQUEST_METHOD"] = method.decode("latin-1")
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        self.keep_alive = keep_alive
        self.limit = limits(environ["REQUEST_METHOD"])
        self.over = int(environ.get("CONTENT_LENGTH", 0)) > self.limit

    def add_body(self, piece: bytes) -> None:
        """A piece of the body, as far as it is wanted."""
        if not self.over:
            self._body += piece
            self.size += len(piece)
            self.over = self.size > self.limit

    def be_whole(self, path: bytes, body: bytes, limit: int) -> None:
        """All of it at once, its headers being in the environ: a POST to `path`, which has no query and no escapes."""
        environ = self.environ
        environ["RAW_URI"] = environ["PATH_INFO"] = path.decode("latin-1")
        self.url, self._body, self.size, self.limit, self.complete = path, body, len(body), limit, True

    def give_environ(self) -> Environ:
        """The environ with its body, to call the application with; a second time as well."""
        self.handed = True
        environ = self.environ
        if self.complete:
            environ["CONTENT_LENGTH"] = str(self.size)  # of a chunked body too
        environ["wsgi.input"] = io.BytesIO(self._body)
        return environ


def base_environ(scheme: str, server: tuple[str, int], peer: tuple[str, int]) -> Environ:
    """What the requests of one connection have in common."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": "gunicorn",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": peer[0],
        "REMOTE_PORT": str(peer[1]),
        "SCRIPT_NAME": "",
    }


def answer(app: App, exchange: Exchange, close: bool) -> tuple[bytes, bool]:
    """The application's whole answer as it goes over the wire, and whether the connection ends with it in any case.

    `close` says that it does. An exception that the application lets through becomes a 500.
    """
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        head[:] = status, headers
        return written.append

    written: list[bytes] = []
    request_id.set(None)  # until it has its own: the last one's is of no concern to what is logged
    try:
        parts = app(exchange.give_environ(), start_response)
        try:
            written.extend(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        status, headers = head
        return encoded(exchange, status, headers, b"".join(written), close), close
    except Exception as error:
        log.error("a request failed", exc_info=error)
        return FAILED.encode(), True


def encoded(exchange: Exchange, status: str, headers: list[tuple[str, str]], body: bytes, close: bool) -> bytes:
    """A whole answer as it goes over the wire."""
    head = "".join([f"{name}: {value}\r\n" for name, value in headers])
    bodiless = status.startswith(("1", "204", "304")) or exchange.environ["REQUEST_METHOD"] == "HEAD"
    if not bodiless and not _tells_length(headers):
        head += f"Content-Length: {len(body)}\r\n"
    if close:
        head += "Connection: close\r\n"
    elif exchange.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        head += "Connection: keep-alive\r\n"
    whole = f"HTTP/1.1 {status}\r\nServer: gunicorn\r\nDate: {http_date()}\r\n{head}\r\n".encode("latin-1")
    return whole if bodiless else whole + body


def _tells_length(headers: list[tuple[str, str]]) -> bool:
    return "Content-Length" in dict(headers) or "content-length" in [name.lower() for name, _ in headers]


_today: tuple[float, str] = (0.0, "")


def http_date() -> str:
    """Now, as HTTP writes it; made once a second."""
    global _today
    now = time.time() // 1
    if _today[0] != now:
        _today = (now, formatdate(now, usegmt=True))
    return _today[1]


def _environ_name(name: bytes) -> str | None:
    key: str | None = None
    if b"_" not in name:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
    if len(_NAMES) < _NAMES_MAX and len(name) <= _NAME_BYTES:
        _NAMES[name] = key
    return key
