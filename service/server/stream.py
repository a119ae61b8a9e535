"""A request whose body may be of any length: read as it comes, answered meanwhile, a piece at a time.

The application gets a `wsgi.input` that never waits: it gives what is there, and None where nothing is yet. Its answer
is an iterable that yields b"" when it needs more (PEP 3333 allows that); it is asked for its next part only when there
is more, in a thread that so never waits for the peer. Nothing is read from a peer whose last pieces are not worked up,
and nothing worked up for one that does not read its answers: memory is constant, whatever the length.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from service.logs import request_id
from service.server.exchange import App, Exchange, encoded, http_date
from service.server.inlet import Inlet
from service.server.refusal import FAILED

log = logging.getLogger("recurve.server")

HIGH_BYTES = 64 * 1024  # that wait for the application: then nothing more is read
PART_BYTES = 64 * 1024  # of answers in one go, then others have their turn

_END = b"0\r\n\r\n"


class Peer(Protocol):
    """The connection, as a stream knows it."""

    @property
    def is_blocked(self) -> bool:
        """Whether it does not read what it is sent."""

    def send(self, part: bytes) -> None:
        """A part of the answer."""

    def hungry(self) -> None:
        """The stream has nothing left to work on."""

    def streamed(self, rest: bytes, ended: bool) -> None:
        """The answer's last bytes; `ended` if the connection ends with it."""

    def broken(self) -> None:
        """There will be no rest of the answer."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a turn of work has brought: a part of the answer; whether it is `over`, and the connection `ended` with it;
    whether the application `failed` behind its head."""

    part: bytes
    over: bool = False
    ended: bool = False
    failed: bool = False


Work = Callable[[Callable[[], Done], Callable[[Done], None]], None]


class Stream:
    """One such request. All methods run in the event loop, the application in `work`'s threads, one turn at a time."""

    def __init__(self, app: App, exchange: Exchange, inlet: Inlet, close: bool, peer: Peer, work: Work) -> None:
        self._app = app
        self._exchange = exchange
        self._close = close
        self._peer = peer
        self._work = work
        self._context = contextvars.copy_context()  # its request id, whichever thread it is in
        self._parts: Iterator[bytes] | None = None
        self._chunked = exchange.environ["SERVER_PROTOCOL"] != "HTTP/1.0"
        self._working = self._begun = self._abandoned = False
        self.inlet = inlet
        self.over = False

    def go_on(self) -> None:
        """Something has arrived, or was read by the peer: another turn, if there is anything to do."""
        if self._working or self.over or self._peer.is_blocked:
            return
        if self._begun and not self.inlet.is_ready:
            self._peer.hungry()
            return
        self._working = self._begun = True
        self._work(lambda: self._context.run(self._turn), self._turned)

    def abandon(self) -> None:
        """The peer is gone, or what it sends makes no sense: no further turn."""
        self.over = self._abandoned = True
        if not self._working:
            self._let_go()

    # -- a turn -------------------------------------------------------------------------------------------------

    def _turned(self, done: Done) -> None:
        self._working = False
        if self._abandoned:
            self._let_go()
        elif done.failed:
            self.over = True
            self._peer.broken()
        elif done.over:
            self.over = True
            self._peer.streamed(done.part, done.ended)
        else:
            if done.part:
                self._peer.send(done.part)
            self.go_on()

    def _turn(self) -> Done:
        """In a thread: some parts of the answer."""
        head_is_out = self._parts is not None
        try:
            sent = b"" if self._parts is not None else self._begin()
            return self._next_parts(sent)
        except _Whole as whole:
            return Done(whole.answer, over=True, ended=self._close)
        except Exception as error:
            log.error("a request failed", exc_info=error)
            return Done(b"", failed=True) if head_is_out else Done(FAILED.encode(), over=True, ended=True)

    def _begin(self) -> bytes:
        """Call the application: the answer's head, where it is a stream."""
        head: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            head[:] = status, headers
            return bytes

        request_id.set(None)
        parts = self._app(self._exchange.give_environ() | {"wsgi.input": self.inlet}, start_response)
        status, headers = head
        if any(name.lower() == "content-length" for name, _ in headers):  # it did not need the body
            try:
                raise _Whole(encoded(self._exchange, status, headers, b"".join(parts), self._close))
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        self._close = self._close or not self._chunked
        self._parts = iter(parts)
        lines = [f"HTTP/1.1 {status}", "Server: gunicorn", f"Date: {http_date()}", *(f"{n}: {v}" for n, v in headers)]
        lines += ["Transfer-Encoding: chunked"] if self._chunked else []
        lines += ["Connection: close"] if self._close else []
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _next_parts(self, sent: bytes) -> Done:
        pieces, size = [sent], 0
        assert self._parts is not None
        for part in self._parts:
            if not part:
                return Done(b"".join(pieces))
            pieces.append(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)
            size += len(part)
            if size >= PART_BYTES:
                return Done(b"".join(pieces))
        if self._chunked:
            pieces.append(_END)
        return Done(b"".join(pieces), over=True, ended=self._close)

    def _let_go(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None and hasattr(parts, "close"):
            parts.close()


class _Whole(Exception):
    """The application has answered without a stream."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
