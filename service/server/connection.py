"""One connection: requests are handed over and answered in order; nobody waits for a peer that is slow."""

from __future__ import annotations

import asyncio
from asyncio import Transport
from collections import deque
from typing import cast

from service.server import refusal
from service.server.exchange import Exchange, base_environ
from service.server.house import House
from service.server.reading import Reader
from service.server.stream import HIGH_BYTES, Stream

PACE = 16 * 1024  # bytes a second: who keeps this up, however large the body, is not slow
STOPPING_S = 3.0  # for what is still coming in when the process is asked to stop
DRAIN_S = 2.0  # for what is still coming in of a request that is answered
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 over one transport. All methods run in the event loop.

    `deadline` (loop time, None for none) is when the house calls `expire`.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._waiting: deque[Exchange] = deque()
        self._busy = False
        self._blocked = False  # the peer does not read what it is sent
        self._paused = False
        self._last = False  # the connection ends once the rest of an answered request is through
        self._lingers = False
        self._stream: Stream | None = None  # the request under way, if its body may be of any length
        self._asked = False  # something has arrived: an idle connection may end, one that is new is about to ask
        self.deadline: float | None = None

    # -- asyncio's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BufferedProtocol."""
        self._transport = cast(Transport, transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        server = transport.get_extra_info("sockname") or ("", 0)
        scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        if scheme == "http":  # else answers wait for those to others that have asked meanwhile
            self._transport.set_write_buffer_limits(0)
        named = (pair if isinstance(pair, tuple) else ("", 0) for pair in (server, peer))
        self._reader = Reader(self._house, base_environ(scheme, *named), self)
        self._house.enter(self)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BufferedProtocol."""
        self._forget()
        self._house.leave(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """See asyncio.BufferedProtocol."""
        return self._house.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        data, reader = bytes(memoryview(self._house.buffer)[:nbytes]), self._reader
        self._asked = True
        if reader.deaf:
            return
        if self._busy:
            pass  # time begins when it is answered
        elif reader.arriving is None:
            self.deadline = self._house.now() + self._house.bounds.patience_s
        elif self.deadline is not None:
            self.deadline += nbytes / PACE
        reader.feed(data)
        if self._stream is not None:
            self._look_after(self._stream)
        elif not self._busy:
            self._go_on()
        elif self._waiting:
            self._pause()

    def eof_received(self) -> bool:
        """See asyncio.BufferedProtocol: what was asked for is still answered."""
        self._reader.deaf = True
        if self._stream is not None:
            self._look_after(self._stream)
        return not self._lingers and (self._busy or bool(self._waiting))

    def pause_writing(self) -> None:
        """See asyncio.BufferedProtocol: the peer does not read its answers, or not as fast."""
        self._blocked = True
        self._give_time_to_read()
        self._pause()

    def resume_writing(self) -> None:
        """See asyncio.BufferedProtocol."""
        self._blocked = False
        if self._stream is not None:
            self.deadline = None
            self._stream.go_on()
            return
        self._rest()
        self._go_on()

    # -- the reader's side --------------------------------------------------------------------------------------

    def ready(self, exchange: Exchange) -> None:
        """See reading.Listener."""
        self._waiting.append(exchange)

    def leave_asked(self) -> None:
        """See reading.Listener."""
        if not self._busy and not self._waiting:
            self._transport.write(_CONTINUE)

    def more(self, exchange: Exchange) -> None:
        """See reading.Listener."""
        if self._stream is not None:  # else it waits its turn
            if not self._blocked:
                self.deadline = None
            self._stream.go_on()

    def through(self, exchange: Exchange) -> None:
        """See reading.Listener."""
        if self._last or (self._house.stopping and not self._busy):
            self._end()
        elif not self._busy:
            self._rest()

    # -- in order -----------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """The next request that is there, one at a time so that other connections get their turn."""
        if self._busy or self._blocked or self._transport.is_closing():
            return
        if self._waiting:
            exchange = self._waiting.popleft()
            self._busy, self.deadline = True, None
            close = self._closes_after(exchange)
            if exchange.inlet is None:
                self._house.answer(exchange, close, self.answered)
            else:
                self._under_way = exchange
                self._stream = self._house.stream(exchange, exchange.inlet, close, self)
                self._stream.go_on()
        elif self._reader.refusal is not None:
            if not self._lingers:
                self._transport.write(self._reader.refusal.encode())
                self._linger()
        elif self._reader.deaf and self._reader.arriving is not None:  # it sent what can't be read, after its answer
            self._linger()
        elif self._reader.deaf:
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
        if exchange is self._reader.arriving:  # thrown away, but read: or it would not get to read the answer
            self._last, self.deadline = last, self._house.now() + DRAIN_S
        elif last:
            self._end()
        else:
            self._rest()
        if self._waiting or self._paused or self._reader.deaf:
            self._house.soon(self._go_on)

    def _closes_after(self, exchange: Exchange) -> bool:
        if not exchange.keep_alive:
            return True
        ends = self._house.stopping or (self._reader.deaf and self._reader.refusal is None)
        return ends and not self._waiting

    # -- a stream's side ----------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """See stream.Peer."""
        return self._blocked

    def send(self, part: bytes) -> None:
        """See stream.Peer."""
        if not self._transport.is_closing():
            self._transport.write(part)
            self._let_in()
        if self._house.stopping:
            self._end()

    def hungry(self) -> None:
        """See stream.Peer: the next piece of the body may take as long as the next request."""
        self.deadline = self._house.now() + max(self._house.bounds.keepalive_s, self._house.bounds.patience_s)
        self._let_in()
        if self._house.stopping or self._reader.deaf:
            self._end()

    def streamed(self, rest: bytes, ended: bool) -> None:
        """See stream.Peer."""
        exchange, self._stream = self._under_way, None
        exchange.inlet = None
        self.answered(exchange, rest, ended)

    def broken(self) -> None:
        """See stream.Peer: what was sent is cut off, so that it can't pass for the whole."""
        self._stream = None
        self._transport.abort()

    def _look_after(self, stream: Stream) -> None:
        """Something was read: nothing more is while enough waits to be worked up; a torn body has no rest."""
        if self._reader.deaf and not self._under_way.complete:
            stream.go_on()
        elif stream.inlet.size >= HIGH_BYTES or self._waiting:
            self._pause()

    def _let_in(self) -> None:
        if self._paused and self._stream is not None and self._stream.inlet.size < HIGH_BYTES and not self._waiting:
            self._paused = False
            self._transport.resume_reading()

    # -- time ---------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = None
        exchange = self._reader.arriving
        if self._blocked or self._lingers or self._transport.is_closing():
            self._transport.abort()
        elif exchange is None or exchange.handed:
            self._end()
        else:
            self._reader.refuse(refusal.SLOW_HEAD if self._reader.in_head else refusal.SLOW_BODY)
            self._go_on()

    def hurry(self) -> None:
        """The process is asked to stop: an idle connection ends, what is arriving has STOPPING_S.

        So has the first request of a connection made just now: its client has seen no answer that would let it expect
        an end, and would have to take this for a failure.
        """
        idle = self._reader.arriving is None and not self._busy and not self._waiting
        if self._lingers or (idle and self._asked):
            self._end()
        if self.deadline is not None:
            self.deadline = min(self.deadline, self._house.now() + STOPPING_S)

    def _rest(self) -> None:
        """Nothing is owed: until the next request, or for the one that is arriving, time begins now."""
        if not self._blocked and not self._transport.is_closing():
            bounds = self._house.bounds
            wait_s = bounds.keepalive_s if self._reader.arriving is None else bounds.patience_s
            self.deadline = self._house.now() + wait_s

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _linger(self) -> None:
        """End, but only once the peer has: closed on what it still sends, it might not get to read its answer."""
        self._forget()
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._lingers, self.deadline = True, self._house.now() + DRAIN_S

    def _end(self) -> None:
        self._forget()
        self._transport.close()
        self._give_time_to_read()

    def _give_time_to_read(self) -> None:
        """What is written must leave here in time, at PACE if it is much."""
        rest = self._transport.get_write_buffer_size() / PACE
        self.deadline = self._house.now() + self._house.bounds.patience_s + rest

    def _forget(self) -> None:
        """Give back what is held of requests that will not be answered."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
        self._reader.stop()
        self._house.release(sum(exchange.size for exchange in self._waiting))
        self._waiting.clear()
