"""The sweeper: a thread of each worker, of which one at a time sweeps the store they share."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from service.core.errors import RecurveError, StoreUnavailable
from service.core.lease import Lease
from service.core.sweep import Sweep, Swept
from service.looking import Looking

logger = logging.getLogger(__name__)

SHARE = 0.1  # of the time, at most, a sweep is at work
PAUSE_S, LONGEST_PAUSE_S = 0.002, 10.0  # between two slices; longer ones would outlast the lease


class ObservesSweeps(Protocol):
    """Who is told what the sweeper does."""

    def observe_sweeping(self, sweeping: bool) -> None:
        """This process has begun to sweep, or stopped."""
        ...

    def observe_swept(self, swept: Swept, *, done: bool) -> None:
        """A sweep has ended; `done`: it went through the whole store."""
        ...


class Sweeper(Looking):
    """Sweeps about every `every_s`, unless another process does. Trouble with the store breaks a sweep off: the next
    one begins anew."""

    def __init__(self, sweep: Sweep, lease: Lease, observer: ObservesSweeps, every_s: float) -> None:
        super().__init__("recurve-sweeper", "a sweep failed", every_s)
        self._sweep = sweep
        self._lease = lease
        self._observer = observer
        self._every_s = every_s

    def look(self) -> bool:
        """Sweep if a sweep is due and nobody else is at it; True if the whole store was swept."""
        try:
            if not self._lease.take(self._every_s):
                return False
        except StoreUnavailable:
            return False  # every request says so as well
        swept, done = Swept(), False
        self._observer.observe_sweeping(True)
        try:
            try:
                done = self._through(swept)
            finally:
                self._observer.observe_sweeping(False)
                self._lease.give_back(done=done)
        except RecurveError as error:
            logger.warning("a sweep was broken off", extra={"code": error.code, "why": error.detail})
        self._observer.observe_swept(swept, done=done)
        if swept.buried:
            logger.info("expired clients were swept", extra={"clients": dict(swept.buried)})
        return done

    def _through(self, swept: Swept) -> bool:
        """Sweep slice by slice, most of the time waiting; False if it was stopped or the lease was lost."""
        cursor: str | None = None
        while True:
            began = time.perf_counter()
            cursor = self._sweep.slice(cursor, swept)
            if cursor is None:
                return True
            took_s = time.perf_counter() - began
            pause_s = min(max(PAUSE_S, took_s * (1 / SHARE - 1)), LONGEST_PAUSE_S)
            if self._stopped.wait(pause_s) or not self._lease.renew():
                return False
