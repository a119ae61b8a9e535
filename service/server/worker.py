"""gunicorn's asgi worker with our connections in it: one event loop, which calls the WSGI application itself."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
from typing import Any

import uvloop  # noqa: F401  # gunicorn takes it if it is there; imported in the master, it is every worker's at once
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gasgi import ASGIWorker

from service.server import process
from service.server.connection import STOPPING_S, Connection
from service.server.house import Bounds, House
from service.server.seats import Seat
from service.settings import read_settings

log = logging.getLogger("recurve.server")

LOOK_S = 0.25  # between looks at the connections' deadlines
HEAD_BYTES = 64 * 1024  # of all header lines together
PAUSE_S = 0.5  # without accepting, when the process has no room for one more
TURN_S = 0.001  # for others to accept what waits, who have fewer connections
TURNS = 8  # one after another, until it is accepted here whatever the others have


class Worker(ASGIWorker):  # type: ignore[misc]  # gunicorn publishes no types
    """Reads and answers requests in an event loop, and runs short ones right there.

    Handing a request to a thread and its answer back costs more than a predict does. What may take time goes to a
    thread (`House.answer`). Of gunicorn's own worker stay the loop, signals and the life in the master's care; its
    protocol would drop pipelined requests and wait for slow clients without end.
    """

    alive: bool
    seat: Seat

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """gunicorn's own warns that it has no threads; ours has."""

    def load_wsgi(self) -> None:
        """The application. A worker that is to speak TLS and can't does not begin: it would speak in the clear."""
        self._tls = self._get_ssl_context()
        if self.cfg.is_ssl and self._tls is None:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)  # why is logged
        self.wsgi = self.app.wsgi()

    def handle_exit_signal(self) -> None:
        """SIGTERM: accept nothing more, finish what is under way."""
        super().handle_exit_signal()
        self._woken.set()

    def handle_quit_signal(self) -> None:
        """SIGINT, SIGQUIT: end now, which is when the threads are through with what they are at."""
        super().handle_quit_signal()
        self._woken.set()

    def init_process(self) -> None:
        """In the worker, after the fork: at first it still takes signals as the master does, and loses them."""
        self._woken = asyncio.Event()
        self.init_signals()
        super().init_process()

    def init_signals(self) -> None:
        """For the time until the loop runs, which would lose them: a stop asked for meanwhile is remembered."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)

    async def _serve(self) -> None:
        super().init_signals()
        process.settle()
        service, settings = self.wsgi.extensions["recurve"], read_settings()
        cfg = self.cfg  # 0 means without bound
        line, field = cfg.limit_request_line or HEAD_BYTES, cfg.limit_request_field_size or HEAD_BYTES
        bounds = Bounds(
            line, field, line + HEAD_BYTES, cfg.limit_request_fields, settings.read_timeout_s, cfg.keepalive
        )
        self._house = House(self.wsgi, self.loop, settings.threads, bounds, service.kinds, self.seat.tell)
        self._greeting: set[asyncio.Task[None]] = set()
        self._return: asyncio.TimerHandle | None = None
        for listener in self.sockets:
            listener.sock.setblocking(False)
        self._open_doors()
        while self.alive:
            self.notify()
            if self.ppid != os.getppid():
                log.info("the master is gone; this worker ends too")
                self.alive = False
            elif self._house.answers >= self.max_requests:
                log.info("this worker has answered its share and makes room for another")
                self.alive = False
            else:
                self._house.look_at_the_clock()
                if not self._paused:
                    self.seat.show()
                await self._sleep(LOOK_S)
        self.seat.hide()
        self._close_doors()
        await self._finish()

    async def _sleep(self, seconds: float) -> None:
        """Until `seconds` have passed or a signal came."""
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            return
        self._woken.clear()

    def _open_doors(self) -> None:
        self._paused = False
        self.seat.show()
        for listener in self.sockets:
            self.loop.add_reader(listener.sock.fileno(), self._accept, listener.sock)

    def _close_doors(self) -> None:
        for listener in self.sockets:
            self.loop.remove_reader(listener.sock.fileno())

    def _accept(self, listener: socket.socket, turns: int = TURNS) -> None:
        """Few connections at a time: the next may be another worker's, all of which wait at the same door. Who has many
        takes more, or a rush would be let in one by one, with a round of everybody's requests in between.

        Others that have fewer get `turns` of TURN_S to be first.
        """
        for _ in range(1 + self._house.connections // 2):
            if turns and self._has_more_than_others():
                self._stand_back(TURN_S, turns - 1)
                return
            if not self._accept_one(listener):
                return

    def _has_more_than_others(self) -> bool:
        """An eighth more is as many, once they are some: a rush would be let in by small steps otherwise. With ports of
        their own (--reuse-port) nobody else could take what waits here."""
        if self.cfg.reuse_port:
            return False
        least = self.seat.least()
        return least is not None and self._house.connections > least + least // 8

    def _accept_one(self, listener: socket.socket) -> bool:
        if self._house.connections >= self.worker_connections:
            self._pause("as many connections are open as a worker may have")
            return False
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._pause(str(error))
            return False
        connection.setblocking(False)
        guest = Connection(self._house)
        self._house.expect(guest)
        task = self.loop.create_task(self._greet(guest, connection))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)
        return True

    async def _greet(self, guest: Connection, connection: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: guest, connection, ssl=self._tls)
        except OSError as error:  # it went away, or did not speak TLS
            connection.close()
            log.debug("a connection was not made: %s", error)
        finally:
            if guest not in self._house.guests:
                self._house.leave(guest)

    def _pause(self, why: str) -> None:
        log.warning("not accepting connections for %g s: %s", PAUSE_S, why)
        self._paused = True
        self.seat.hide()
        self._stand_back(PAUSE_S, TURNS)

    def _stand_back(self, seconds: float, turns: int) -> None:
        """Accept nothing for so long; others have `turns` left after that for what waits at the doors then."""
        self._close_doors()
        if self._return is not None:
            self._return.cancel()
        self._return = self.loop.call_later(seconds, self._come_back, turns)

    def _come_back(self, turns: int) -> None:
        self._return = None
        if not self.alive:
            return
        self._open_doors()
        waiting = select.poll()
        for listener in self.sockets:
            waiting.register(listener.sock, select.POLLIN)
        ready = {number for number, _ in waiting.poll(0)}
        for listener in self.sockets:
            if listener.sock.fileno() in ready and self._return is None:
                self._accept(listener.sock, turns)

    async def _finish(self) -> None:
        """What is under way ends, within the graceful timeout."""
        if self._quick_shutdown:
            return
        deadline = self.loop.time() + self.cfg.graceful_timeout
        if self._greeting:  # they were let in, and are guests like the others
            await asyncio.wait(set(self._greeting), timeout=STOPPING_S)
        await asyncio.sleep(0)  # what has arrived by now is read first
        await asyncio.sleep(0)
        self._house.stop()
        while self._house.guests and self.loop.time() < deadline and not self._quick_shutdown:
            self.notify()
            self._house.look_at_the_clock()
            await asyncio.sleep(0.02)
        if self._house.guests:
            log.warning("%d connections are cut off", len(self._house.guests))

    def _cleanup(self) -> None:
        house = getattr(self, "_house", None)
        if house is not None:
            house.close()
        super()._cleanup()
