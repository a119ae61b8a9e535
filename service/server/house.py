"""What the connections of one worker share: the application, threads for what takes time, bounds, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from service.core.patience import WouldWait, hurried
from service.server.exchange import App, Environ, Exchange, answer
from service.server.heads import Heads
from service.server.inlet import Inlet
from service.server.stream import Done, Peer, Stream

HELD_BYTES = 64 * 1024 * 1024  # of bodies that are arriving, all connections together
SMALL_BYTES = 16 * 1024  # a body of no more is let in beside any number of large ones
READ_BYTES = 16 * 1024  # at once: of the smallest requests that is a megabyte, once they are parsed

Answered = Callable[[Exchange, bytes, bool], None]


class Guest(Protocol):
    """A connection, as the house knows it."""

    deadline: float | None

    def expire(self) -> None:
        """Its deadline has passed."""

    def hurry(self) -> None:
        """The process is asked to stop."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a request's head: bytes of the first line, of a header line, of all together, and how many header lines.
    Of time: seconds for a request to arrive in, and that a connection may be idle."""

    line_bytes: int
    field_bytes: int
    head_bytes: int
    fields: int
    patience_s: float
    keepalive_s: float


class Kinds(Protocol):
    """What may be known of a request before the application sees it."""

    @property
    def many_at_once(self) -> int:
        """How many requests that bring many clients are worth being worked on at a time."""

    def body_limit(self, method: str) -> int:
        """The most bytes of body that are taken."""

    def is_short(self, method: str, path: str, size: int) -> bool:
        """Whether it is worth a try in the loop, which must not be kept waiting; `size`: of the body, bytes."""

    def is_many(self, method: str, path: str) -> bool:
        """Whether it brings many clients."""

    def is_stream(self, environ: Environ) -> bool:
        """Whether its body may be of any length; such requests bring many clients."""


class House:
    """One worker's connections. All methods run in the event loop, and so does the application for short requests.

    If one of these turns out to mean waiting (WouldWait), and for everything else, a thread calls the application.
    Requests that bring many clients have threads of their own, as few as are worth it: these then have their memory in
    the processor's cache, and nobody else waits behind them. `told` (connections) hears how many connections there are,
    those that are still being greeted included, whenever that changes.
    """

    def __init__(
        self,
        app: App,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        bounds: Bounds,
        kinds: Kinds,
        told: Callable[[int], None] = lambda connections: None,
    ) -> None:
        self._app = app
        self._loop = loop
        self._threads = ThreadPoolExecutor(threads, "recurve-request")
        self._many = ThreadPoolExecutor(kinds.many_at_once, "recurve-many")
        self._is_short, self._is_many = kinds.is_short, kinds.is_many
        self._held = 0
        self.bounds = bounds
        self.heads = Heads()
        self.body_limit = kinds.body_limit
        self.is_stream = kinds.is_stream
        self.now = loop.time
        self.soon: Callable[[Callable[[], None]], Any] = loop.call_soon
        self.guests: set[Guest] = set()
        self._expected: set[Guest] = set()
        self._told = told
        self.stopping = False
        self.answers = 0
        self.buffer = bytearray(READ_BYTES)  # one for all: what is in it is taken out before the next read

    @property
    def connections(self) -> int:
        """How many are open, each counted once."""
        return len(self.guests) + len(self._expected)

    def expect(self, guest: Guest) -> None:
        """A connection is let in: it will enter, or leave before it has."""
        self._expected.add(guest)
        self._told(self.connections)

    def enter(self, guest: Guest) -> None:
        """A connection is made; one that comes when it is too late is told so."""
        self._expected.discard(guest)
        self.guests.add(guest)
        self._told(self.connections)
        if self.stopping:
            self.soon(guest.hurry)

    def leave(self, guest: Guest) -> None:
        """A connection is gone."""
        self._expected.discard(guest)
        self.guests.discard(guest)
        self._told(self.connections)

    def hold(self, size: int, body: int) -> bool:
        """Counts bytes that came in of a body that has `body` by now; False if there is no room for them."""
        self._held += size
        return self._held <= HELD_BYTES or body <= SMALL_BYTES

    def release(self, size: int) -> None:
        """Bytes of bodies that are not held any more."""
        self._held -= size

    def answer(self, exchange: Exchange, close: bool, answered: Answered) -> None:
        """Has the application answer, at once or in a thread; `answered` is called in the loop, maybe before this
        returns."""
        self.answers += 1
        environ = exchange.environ
        if self._is_short(environ["REQUEST_METHOD"], environ["PATH_INFO"], exchange.size):
            try:
                with hurried():
                    said = answer(self._app, exchange, close)
            except WouldWait:
                pass
            else:
                answered(exchange, *said)
                return
        many = self._is_many(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        threads = self._many if many else self._threads
        future = self._loop.run_in_executor(threads, answer, self._app, exchange, close)
        future.add_done_callback(partial(self._tell, exchange, answered))

    def _tell(self, exchange: Exchange, answered: Answered, future: asyncio.Future[tuple[bytes, bool]]) -> None:
        if not future.cancelled():
            answered(exchange, *future.result())

    def stream(self, exchange: Exchange, inlet: Inlet, close: bool, peer: Peer) -> Stream:
        """The answer to a request whose body may be of any length, not begun yet."""
        self.answers += 1
        return Stream(self._app, exchange, inlet, close, peer, self._in_turn)

    def _in_turn(self, work: Callable[[], Done], done: Callable[[Done], None]) -> None:
        future = self._loop.run_in_executor(self._many, work)
        future.add_done_callback(lambda ended: None if ended.cancelled() else done(ended.result()))

    def look_at_the_clock(self) -> None:
        """Ends what has waited for too long; called a few times a second."""
        now = self.now()
        for guest in [guest for guest in self.guests if guest.deadline is not None and guest.deadline <= now]:
            guest.expire()

    def stop(self) -> None:
        """Idle connections end now, the others with their answer."""
        self.stopping = True
        for guest in tuple(self.guests):
            guest.hurry()

    def close(self) -> None:
        """Gives the threads back; what they are at ends first."""
        for threads in (self._threads, self._many):
            threads.shutdown(wait=True, cancel_futures=True)
