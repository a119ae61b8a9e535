"""One connection: requests are read, handed over and answered in order; nobody waits for a peer that is slow."""

from __future__ import annotations

import asyncio
from asyncio import Transport
from collections import deque
from typing import cast

import httptools

from service.server import refusal
from service.server.exchange import Environ, Exchange, base_environ
from service.server.house import House
from service.server.refusal import Refusal

PACE = 16 * 1024  # bytes a second: who keeps this up, however large the body, is not slow
STOPPING_S = 3.0  # for what is still coming in when the process is asked to stop
DRAIN_BYTES = 64 * 1024 * 1024  # of a body nobody wants: the answer would be lost with a connection closed on it
DRAIN_S = 2.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """HTTP/1.1 over one transport. All methods run in the event loop.

    `deadline` (loop time, None for none) is when the house calls `expire`.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._parser = httptools.HttpRequestParser(self)
        self._arriving: Exchange | None = None  # its head or body is still being read
        self._in_head = False
        self._head_bytes = 0
        self._drained = 0
        self._waiting: deque[Exchange] = deque()
        self._busy = False
        self._refusal: Refusal | None = None
        self._deaf = False  # what it sends is not read any more
        self._blocked = False  # it does not read what it is sent
        self._paused = False
        self._last = False  # the connection ends once the body that nobody wants is through
        self._lingers = False
        self.deadline: float | None = None

    # -- asyncio's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(Transport, transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        server = transport.get_extra_info("sockname") or ("", 0)
        scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        named = (pair if isinstance(pair, tuple) else ("", 0) for pair in (server, peer))
        self._base: Environ = base_environ(scheme, *named)
        self._house.enter(self)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._deaf = True
        self._forget()
        self._house.leave(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._deaf:
            return
        if self._busy:
            pass  # time begins when it is answered
        elif self._arriving is None:
            self.deadline = self._house.now() + self._house.patience_s
        elif self.deadline is not None and not self._arriving.handed:
            self.deadline += len(data) / PACE
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # answered as if it had not asked; what follows can't be told from it
            self._deaf = True
        except httptools.HttpParserError as error:
            self._refuse(refusal.unreadable(str(error)))
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._house.head_bytes:
                self._refuse(refusal.LONG_HEAD)
        if not self._busy:
            self._go_on()
        elif self._waiting:
            self._pause()

    def eof_received(self) -> bool:
        """See asyncio.Protocol: what was asked for is still answered."""
        self._deaf = True
        return not self._lingers and (self._busy or bool(self._waiting))

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the peer does not read its answers."""
        self._blocked = True
        self.deadline = self._house.now() + self._house.patience_s
        self._pause()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._blocked = False
        self._rest()
        if not self._busy:
            self._go_on()

    # -- the parser's side --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools."""
        self._arriving = Exchange(self._base)
        self._in_head, self._head_bytes, self._drained = True, 0, 0

    def on_url(self, piece: bytes) -> None:
        """See httptools."""
        exchange = cast(Exchange, self._arriving)
        if len(exchange.url) + len(piece) > self._house.line_bytes:
            self._refuse(refusal.LONG_LINE)
        else:
            exchange.url += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Trailers come this way as well, after the head's end, and are dropped."""
        if self._in_head:
            fields, house = cast(Exchange, self._arriving).add_header(name, value), self._house
            if fields > house.fields or len(name) + len(value) > house.field_bytes:
                self._refuse(refusal.LONG_HEAD)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_head = False
        exchange, parser = cast(Exchange, self._arriving), self._parser
        version, environ = parser.get_http_version(), exchange.environ
        if self._refusal is not None:
            return
        if version not in ("1.1", "1.0"):
            self._refuse(refusal.OTHER_VERSION)
            return
        if environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower() != "chunked":
            self._refuse(refusal.OTHER_CODING)
            return
        exchange.end_head(parser.get_method(), version, parser.should_keep_alive(), self._house.body_limit)
        if exchange.over:
            self._hand_over(exchange)
        elif "HTTP_EXPECT" in environ:
            if environ["HTTP_EXPECT"].lower() != "100-continue":
                self._refuse(refusal.OTHER_EXPECTATION)
            elif not self._busy and not self._waiting:
                self._transport.write(_CONTINUE)

    def on_body(self, piece: bytes) -> None:
        """See httptools."""
        exchange = cast(Exchange, self._arriving)
        if exchange.handed:
            self._drained += len(piece)
            if self._drained > DRAIN_BYTES:
                self._end()
        elif self._refusal is None:
            exchange.add_body(piece)
            if not self._house.hold(len(piece)):
                self._refuse(refusal.NO_ROOM)
            elif exchange.over:
                self._hand_over(exchange)

    def on_message_complete(self) -> None:
        """See httptools."""
        exchange = cast(Exchange, self._arriving)
        self._arriving, exchange.complete = None, True
        if exchange.handed:  # the body that nobody wanted is through
            if self._last:
                self._end()
            elif not self._busy:
                self._rest()
        elif self._refusal is None:
            self._hand_over(exchange)
        else:
            self._house.release(exchange.size)

    # -- in order -----------------------------------------------------------------------------------------------

    def _hand_over(self, exchange: Exchange) -> None:
        exchange.handed = True
        self._waiting.append(exchange)

    def _refuse(self, why: Refusal) -> None:
        """Nothing more is read; `why` is answered after what was asked for before."""
        self._deaf = True
        self._refusal = self._refusal or why

    def _go_on(self) -> None:
        """The next request that is there, one at a time so that other connections get their turn."""
        if self._busy or self._blocked or self._transport.is_closing():
            return
        if self._waiting:
            exchange = self._waiting.popleft()
            self._busy, self.deadline = True, None
            self._house.answer(exchange, self._closes_after(exchange), self.answered)
        elif self._refusal is not None:
            if not self._lingers:
                self._transport.write(self._refusal.encode())
                self._linger()
        elif self._deaf:
            self._end()
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()

    def answered(self, exchange: Exchange, answer: bytes, ended: bool) -> None:
        """What the application said; `ended` if nothing more can be expected of it."""
        self._busy = False
        self._house.release(exchange.size)
        if self._transport.is_closing():
            return
        self._transport.write(answer)
        last = ended or self._closes_after(exchange)
        if exchange is self._arriving:  # what it still sends is thrown away, or it would not get to read the answer
            self._last, self.deadline = last, self._house.now() + DRAIN_S
        elif last:
            self._end()
        else:
            self._rest()
            if self._waiting or self._paused or self._deaf:
                self._house.soon(self._go_on)

    def _closes_after(self, exchange: Exchange) -> bool:
        stopping = self._house.stopping and not self._waiting
        return not exchange.keep_alive or stopping or (self._deaf and not self._waiting and self._refusal is None)

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing was asked that is not answered."""
        return self._arriving is None and not self._busy and not self._waiting

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = None
        exchange = self._arriving
        if self._blocked or self._lingers:
            self._transport.abort()
        elif exchange is None or exchange.handed:
            self._end()
        else:
            self._refuse(refusal.SLOW_HEAD if self._in_head else refusal.SLOW_BODY)
            self._go_on()

    def hurry(self) -> None:
        """The process is asked to stop: an idle connection ends, what is arriving has STOPPING_S."""
        if self._lingers or (self._arriving is None and not self._busy and not self._waiting):
            self._end()
        elif self.deadline is not None:
            self.deadline = min(self.deadline, self._house.now() + STOPPING_S)

    def _rest(self) -> None:
        """Nothing is owed: until the next request, or for the one that is arriving, time begins now."""
        if not self._blocked:
            wait_s = self._house.keepalive_s if self._arriving is None else self._house.patience_s
            self.deadline = self._house.now() + wait_s

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _linger(self) -> None:
        """End, but only once the peer has: closed on what it still sends, it might not get to read its answer."""
        if not self._transport.can_write_eof():
            self._end()
            return
        self._transport.write_eof()
        self._lingers, self.deadline = True, self._house.now() + DRAIN_S
        self._forget()

    def _end(self) -> None:
        self._deaf = True
        self._forget()
        self._transport.close()

    def _forget(self) -> None:
        """Give back what is held of requests that will not be answered."""
        if self._arriving is not None and not self._arriving.handed:
            self._house.release(self._arriving.size)
        self._house.release(sum(exchange.size for exchange in self._waiting))
        self._arriving = None
        self._waiting.clear()
