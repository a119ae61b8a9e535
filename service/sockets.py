"""A connection's socket whose peer can't keep a thread waiting for ever."""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

PACE = 16 * 1024  # bytes a second: who keeps this up, however large the body, is not slow
STOPPING_S = 3.0  # for what is still coming in when the process is asked to stop
TURN_S = 0.05
_LOOK_MS = 250.0  # between looks whether it is


class Stalled(TimeoutError):
    """The peer did not send what it owes in time.

    It carries the errno of a reset connection, which gunicorn takes without writing a trace to the log.
    """

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client stalled")


class Turn:
    """One request's turn to work among those of a process; it ends before anything that may wait for the client.

    Who has waited TURN_S goes on without it: a long request holds nobody up for longer. For one thread.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._held = False

    def take(self) -> None:
        """Wait for the turn, not for long."""
        self._held = self._lock.acquire(timeout=TURN_S)

    def give(self) -> None:
        """End the turn, if it is still held."""
        if self._held:
            self._held = False
            self._lock.release()


class PatientSocket(socket.socket):
    """A blocking socket that waits `patience_s` for a whole request, longer only as bytes keep coming at PACE.

    A bound on each read alone would let a byte now and then hold a thread for hours. What arrived at once is read
    without a further system call. `stopping` tells that the process ends: then STOPPING_S have to do. Writes that
    make no headway for `patience_s` break the connection.
    """

    def __init__(self, inner: socket.socket, patience_s: float, stopping: Callable[[], bool]) -> None:
        family, kind, proto = inner.family, inner.type, inner.proto
        super().__init__(family, kind, proto, fileno=inner.detach())
        self.setblocking(True)
        whole = int(patience_s)
        self.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, int((patience_s - whole) * 1e6))
        )
        self._patience_s = patience_s
        self._stopping = stopping
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)
        self.request: Any = None
        self.turn: Turn | None = None
        self.stalled = False
        self.await_request()

    def await_request(self) -> None:
        """A request is about to be read: time begins now. `request` is None until its head is there."""
        self.request = None
        self._pace = PACE
        self._deadline = time.monotonic() + self._patience_s

    def hurry(self, seconds: float) -> None:
        """What is left of this request has to come within `seconds`, at whatever pace."""
        self._pace = 0
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def give_up(self) -> None:
        """The rest of this request can't be told from the next one: the connection ends with its answer."""
        if self.request is not None:
            self.request.force_close()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`; Stalled when a blocking read has waited long enough."""
        if self.gettimeout() is not None:  # somebody else's bound
            return super().recv(size, flags)
        while True:
            try:
                data = super().recv(size, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait()
                continue
            if self._pace:
                self._deadline += len(data) / self._pace
            elif time.monotonic() > self._deadline:
                self._stall()
            return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As `socket.sendall`; BrokenPipeError if the peer takes nothing for too long. Ends the request's turn."""
        if self.turn is not None:
            self.turn.give()
        try:
            super().sendall(data, flags)
        except BlockingIOError:
            if self.gettimeout() is not None:
                raise
            raise BrokenPipeError(errno.EPIPE, "the client does not read its answer") from None

    def _wait(self) -> None:
        """Until there is something to read; Stalled at the deadline. Ends the request's turn."""
        if self.turn is not None:
            self.turn.give()
        while True:
            if self._stopping() and self._pace:
                self.hurry(STOPPING_S)
            left_ms = (self._deadline - time.monotonic()) * 1000
            if left_ms <= 0:
                self._stall()
            if self._poll.poll(min(left_ms, _LOOK_MS)):
                return

    def _stall(self) -> None:
        self.stalled = True
        self.give_up()
        raise Stalled
