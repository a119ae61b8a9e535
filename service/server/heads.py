"""Headers that were read before: those of one client's requests hardly differ, so each kind of them is parsed once.

A request is taken from here only if it has arrived by itself and whole, and its headers are byte for byte those of one
that the parser has read and found to be an ordinary POST. Everything else is the parser's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from service.server.exchange import Environ, Exchange

MOST = 256  # kinds of headers remembered
MOST_BYTES = 1024  # of one kind
_LINE = re.compile(rb"POST (/[!-$&->@-~]*) HTTP/1\.1\r\n")  # no query, nothing to decode
_UNUSUAL = frozenset(
    (
        "HTTP_EXPECT", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE",  # more than headers and a body
        "HTTP_IDEMPOTENCY_KEY", "HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT",  # never the same twice
    )
)  # fmt: skip
_TYPES = frozenset(("", "application/json", "application/x-www-form-urlencoded"))  # another may be of lines: a stream
_OWN = ("RAW_URI", "PATH_INFO")  # of each request


class _Known(NamedTuple):
    """What a kind of headers says: environ's part, and how long the body is."""

    environ: Environ
    size: int
    limit: int


class Heads:
    """The headers of all connections of a worker, by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def exchange(self, data: bytes, base: Environ, line_bytes: int) -> Exchange | None:
        """The request that `data` is, whole and alone, with headers that are known; None for anything else.

        `base` is what the requests of its connection have in common, `line_bytes` how long a path may be.
        """
        line = _LINE.match(data)
        if line is None:
            return None
        begins, ends = line.end(), data.find(b"\r\n\r\n", line.end() - 2) + 4
        known = self._known.get(data[begins:ends])
        if known is None or len(data) != ends + known.size or len(line[1]) > line_bytes:
            return None
        exchange = Exchange(base)
        exchange.environ.update(known.environ)
        exchange.be_whole(line[1], data[ends:], known.limit)
        return exchange

    def learn(self, data: bytes, exchange: Exchange, base: Environ) -> None:
        """`exchange` is what the parser made of `data`, which holds it whole and nothing else; not answered yet."""
        line = _LINE.match(data)
        ends = len(data) - exchange.size
        if line is None or ends - line.end() > MOST_BYTES or data[ends - 4 : ends] != b"\r\n\r\n":
            return
        environ = exchange.environ
        if exchange.over or not exchange.keep_alive or environ.get("CONTENT_LENGTH") != str(exchange.size):
            return
        if environ.get("CONTENT_TYPE", "") not in _TYPES or not _UNUSUAL.isdisjoint(environ):
            return
        if len(self._known) >= MOST:
            self._known.clear()
        own = {name: value for name, value in environ.items() if name not in base and name not in _OWN}
        self._known[data[line.end() : ends]] = _Known(own, exchange.size, exchange.limit)
