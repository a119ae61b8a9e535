"""What arrives on one connection, as exchanges: the parser's callbacks, and the bounds of a request's head and body."""

from __future__ import annotations

import logging
from typing import Protocol

import httptools

from service.server import refusal
from service.server.exchange import Environ, Exchange
from service.server.house import House
from service.server.inlet import Inlet
from service.server.refusal import Refusal

log = logging.getLogger("recurve.server")

DRAIN_BYTES = 64 * 1024 * 1024  # of a body nobody wants: the answer would be lost with a connection closed on it


class Listener(Protocol):
    """Who is told of what arrives."""

    def ready(self, exchange: Exchange) -> None:
        """A request can be answered: it is complete, or its body is more than is taken."""

    def leave_asked(self) -> None:
        """The peer waits for a word before it sends its body."""

    def more(self, exchange: Exchange) -> None:
        """More of a body that may be of any length has arrived, or its end."""

    def through(self, exchange: Exchange) -> None:
        """The rest of a request that was `ready` before has arrived, and is thrown away."""


class Reader:
    """Makes exchanges of bytes. Once `refusal` is set, or `deaf`, nothing more is read."""

    def __init__(self, house: House, base: Environ, listener: Listener) -> None:
        self._house = house
        self._base = base
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._idle_bytes = 0  # in a row, that brought neither a request's beginning nor anything of its body
        self._drained = 0
        self._messages = 0  # that began in the bytes of one `feed`
        self._whole: Exchange | None = None  # the last that ended in them
        self._ended = False  # a request said that it is the last
        self.arriving: Exchange | None = None  # its head or body is still being read
        self.in_head = False
        self.refusal: Refusal | None = None
        self.deaf = False

    def feed(self, data: bytes) -> None:
        """Some bytes, whatever they are."""
        between = self.arriving is None and not self._idle_bytes and not self._ended
        if between:
            exchange = self._house.heads.exchange(data, self._base, self._house.bounds.line_bytes)
            if exchange is not None:
                self._house.hold(exchange.size, exchange.size)
                self._hand_over(exchange)
                return
        self._idle_bytes += len(data)
        self._messages = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # answered as if it had not asked; what follows can't be told from it
            self.deaf = True
        except httptools.HttpParserCallbackError as error:  # ours, below
            log.error("a request failed", exc_info=error)
            self.refuse(refusal.FAILED)
        except httptools.HttpParserError as error:
            self.refuse(refusal.unreadable(str(error)))
        if between and self._messages == 1 and self._whole is not None and not self.deaf:
            self._house.heads.learn(data, self._whole, self._base)
        self._whole = None
        if self._idle_bytes > self._house.bounds.head_bytes:  # trailers and chunk extensions can be long, too
            self.refuse(refusal.LONG_HEAD)

    def refuse(self, why: Refusal) -> None:
        """Nothing more is read, because of `why`; the first reason counts. Who has its answer gets no second one."""
        self.deaf = True
        if self.arriving is None or not self.arriving.handed:
            self.refusal = self.refusal or why

    def stop(self) -> None:
        """Nothing more is read; what has arrived of a request is dropped."""
        self.deaf = True
        if self.arriving is not None and not self.arriving.handed:
            self._house.release(self.arriving.size)
        self.arriving = None

    # -- httptools' side ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools."""
        self.arriving = Exchange(self._base)
        self._messages += 1
        self.in_head, self._idle_bytes, self._drained = True, 0, 0

    def on_url(self, piece: bytes) -> None:
        """See httptools."""
        exchange = self.arriving
        if exchange is None:
            return
        if len(exchange.url) + len(piece) > self._house.bounds.line_bytes:
            self.refuse(refusal.LONG_LINE)
        else:
            exchange.url += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Trailers come this way as well, after the head's end, and are dropped."""
        if self.in_head:
            exchange, bounds = self.arriving, self._house.bounds
            if exchange is None:  # dropped meanwhile
                return
            fields = exchange.add_header(name, value)
            if fields > bounds.fields or len(name) + len(value) > bounds.field_bytes:
                self.refuse(refusal.LONG_HEAD)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self.in_head = False
        exchange, parser = self.arriving, self._parser
        if exchange is None:
            return
        version, environ = parser.get_http_version(), exchange.environ
        if self.refusal is not None:
            return
        if version not in ("1.1", "1.0"):
            self.refuse(refusal.OTHER_VERSION)
            return
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        if coding is not None and (version == "1.0" or coding.strip().lower() != "chunked"):
            self.refuse(refusal.OTHER_CODING)
            return
        try:
            exchange.end_head(parser.get_method(), version, parser.should_keep_alive(), self._house.body_limit)
        except httptools.HttpParserInvalidURLError as error:
            self.refuse(refusal.unreadable(str(error)))
            return
        self._ended = not exchange.keep_alive
        if self._house.is_stream(environ):
            exchange.inlet, exchange.over = Inlet(), False
        if exchange.over:
            self._hand_over(exchange)
        elif "HTTP_EXPECT" in environ and version == "1.1":
            if environ["HTTP_EXPECT"].lower() == "100-continue":
                self._listener.leave_asked()
            else:
                self.refuse(refusal.OTHER_EXPECTATION)
        if exchange.inlet is not None and self.refusal is None:
            self._hand_over(exchange)

    def on_body(self, piece: bytes) -> None:
        """See httptools."""
        exchange, self._idle_bytes = self.arriving, 0
        if exchange is None:
            return
        if exchange.inlet is not None:
            exchange.inlet.feed(piece)
            self._listener.more(exchange)
        elif exchange.handed:
            self._drained += len(piece)
            if self._drained > DRAIN_BYTES:
                self.deaf = True
        elif self.refusal is None:
            exchange.add_body(piece)
            if not self._house.hold(len(piece), exchange.size):
                self.refuse(refusal.NO_ROOM)
            elif exchange.over:
                self._hand_over(exchange)

    def on_message_complete(self) -> None:
        """See httptools."""
        exchange = self.arriving
        if exchange is None:
            return
        self.arriving, exchange.complete, self._idle_bytes = None, True, 0
        if exchange.inlet is not None:
            exchange.inlet.end()
            self._listener.more(exchange)
        elif exchange.handed:
            self._listener.through(exchange)
        elif self.refusal is None:
            self._whole = exchange
            self._hand_over(exchange)
        else:
            self._house.release(exchange.size)

    def _hand_over(self, exchange: Exchange) -> None:
        exchange.handed = True
        self._listener.ready(exchange)
