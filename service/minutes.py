"""Minute sums: what the requests of all processes add up to, minute by minute, in the store they share.

Adding is an append, as for metrics (`tally`). A thread adds up what waits and writes it about once a second, by
compare-and-set. A worker that is killed takes with it what was not written: at most about its last second. Sums that
the store does not take are kept and written later, the latest `MOST_KEPT` of them.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence

from service.core import minutes
from service.core.errors import RecordCorrupt, StoreUnavailable
from service.core.minutes import ROW_BYTES, TENANT, Minute, Sums, Values
from service.core.ports import Clock, StateStore

logger = logging.getLogger(__name__)

MOST_KEPT = 2000  # minutes of series in this process; an outage of a day with one series fits
FLUSH_S, MARGIN_FLUSHES = 1.0, 5
TRIES = 50  # of one compare-and-set; other workers' are as short
LISTED = 500


class MinuteSums:
    """Adds up values by model, series and minute. Safe from any thread and, over a shared store, from any process.

    Built after the fork, as the store is. `minute_s` has to be the same in all processes.
    """

    def __init__(self, store: StateStore, clock: Clock, minute_s: float = 60.0) -> None:
        self._store = store
        self.clock = clock
        self.minute_s = minute_s
        self._flush_s = min(FLUSH_S, minute_s / 10)
        self.gathers: list[Callable[[], None]] = []  # called first: who has more to add
        self._added: deque[tuple[float, str, str, Sequence[float]]] = deque()
        self._open: dict[tuple[str, str, float], _Row] = {}
        self._flushing = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, model: str, series: str, values: Sequence[float]) -> None:
        """Add `values`, one by one, to the sums of this minute. They may not be changed afterwards."""
        self.add_at(self.clock(), model, series, values)

    def add_at(self, moment: float, model: str, series: str, values: Sequence[float]) -> None:
        """`add`, to the sums of the minute that `moment` lies in."""
        self._added.append((moment, model, series, values))

    @property
    def margin_s(self) -> float:
        """How long after its end a minute counts as closed: for flushes to come and clocks to be apart."""
        return MARGIN_FLUSHES * self._flush_s

    def closed(self, model: str, series: str, after: float = -math.inf) -> list[Minute]:
        """The closed minutes that began later than `after`, in order; one in which nothing was added is left out.

        What is added to a minute later still (by a process cut off from the store) shows when it is asked for again.
        Minutes are deleted after a day (`core/sweep.py`). Raises what the store raises.
        """
        latest = self.clock() - self.minute_s - self.margin_s
        starts: set[float | None] = set()
        cursor: str | None = None
        while True:
            page = self._store.list(TENANT, model, cursor, LISTED)
            starts.update(minutes.start_in(client, series) for client in page.clients)
            cursor = page.cursor
            if cursor is None:
                break
        found = []
        for start in sorted(start for start in starts if start is not None and after < start <= latest):
            key = minutes.place(model, series, start)
            stored = self._store.load(key)
            if stored is None:
                continue
            try:
                found.append(Minute(start, minutes.decode(key, stored.blob).total()))
            except RecordCorrupt as error:
                logger.error("a minute's sums do not read", extra={"model": model, "key": key[2], "why": error.detail})
        return found

    def flush(self) -> bool:
        """Write what was added since; False if some of it is left for the next time."""
        with self._flushing:
            for gather in self.gathers:
                gather()
            self._add_up()
            try:
                for (model, series, start), row in self._open.items():
                    if row.changed:
                        self._write(model, series, start, row)
            except StoreUnavailable:  # every request says so as well
                pass
            self._let_go()
            return not any(row.changed for row in self._open.values())

    def start(self) -> None:
        """Flush about once a second in a thread of this process, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="recurve-minutes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; everything is written then, if the store takes it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        if not self.flush():
            logger.warning("the store did not take the last sums of this process's minutes")

    def _run(self) -> None:
        while not self._stopped.wait(self._flush_s):
            try:
                self.flush()
            except Exception:  # the thread's outermost handler: without it what is added piles up for good
                logger.exception("writing minute sums failed")

    def _add_up(self) -> None:
        for _ in range(len(self._added)):
            moment, model, series, values = self._added.popleft()
            key = model, series, minutes.start_of(moment, self.minute_s)
            row = self._open.get(key)
            if row is None:
                row = self._open[key] = _Row()
            row.add(values)

    def _write(self, model: str, series: str, start: float, row: _Row) -> None:
        key = minutes.place(model, series, start)
        for _ in range(TRIES):
            stored = self._store.load(key)
            sums = Sums(start, self.minute_s)
            if stored is not None:
                try:
                    sums = minutes.decode(key, stored.blob)
                except RecordCorrupt as error:
                    logger.error("a minute's sums are begun anew", extra={"key": key[2], "why": error.detail})
            blob = minutes.encode(key, sums.with_row(row.name, row.values))
            if self._store.save(key, None if stored is None else stored.nonce, secrets.token_bytes(8), blob):
                row.changed = False
                return

    def _let_go(self) -> None:
        """Forget rows that are written and no longer added to, and the oldest where too many wait for the store."""
        latest = self.clock() - self.minute_s - self.margin_s
        for key in [key for key, row in self._open.items() if not row.changed and key[2] <= latest]:
            del self._open[key]
        if len(self._open) > MOST_KEPT:
            oldest = sorted(self._open, key=lambda key: key[2])[: len(self._open) - MOST_KEPT]
            logger.warning("minute sums were given up: the store was away for too long", extra={"minutes": len(oldest)})
            for key in oldest:
                del self._open[key]


class _Row:
    """What this process has added to one minute of one series. Another name for each: none replaces an older one."""

    def __init__(self) -> None:
        self.name = secrets.token_bytes(ROW_BYTES)
        self.values: Values = ()
        self.changed = False

    def add(self, values: Sequence[float]) -> None:
        if all(map(math.isfinite, values)):  # one NaN would be the whole minute's sum
            self.values = minutes.plus(self.values, values)
            self.changed = True
