"""The watch over live errors: a thread of each worker, of which one at a time looks whether they have changed."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from models.drift import Drift, read_drift, report_drift
from models.errors import RepositoryError
from service.core.errors import RecordCorrupt, StoreUnavailable
from service.core.lease import MARGIN_S, Lease
from service.core.minutes import Minute
from service.core.ports import Clock, StateStore, Stored
from service.core.registry import Registry
from service.drift.apart import Changes, DetectorApart, DetectorFailed, Shares
from service.drift.history import MOST, Change, ErrorMinute, History, decode, encode, place, ratio
from service.live import SERIES
from service.looking import Looking

logger = logging.getLogger(__name__)

ENOUGH = 30  # minutes, before a process is started for them
WORSE = 1.05  # a smaller growth of the errors is none to retrain for


class Sums(Protocol):
    """Where the minutes' sums are read."""

    def closed(self, model: str, series: str, after: float = ...) -> list[Minute]:
        """The closed minutes of a series that began later than `after`."""
        ...


class ObservesDrift(Protocol):
    """Who is told what the watch sees."""

    def observe_drift(self, model: str, *, stands: bool, new: bool) -> None:
        """Whether the served version's errors have grown; `new`: this was noticed now."""
        ...


class DriftWatch(Looking):
    """Looks about every `every_s` whether live errors of served versions have changed, unless another process does.

    A change for the worse is counted, logged and noted in the model's folder of the repository, once. Histories are in
    the store: whoever looks next goes on from them.
    """

    def __init__(
        self,
        registry: Registry,
        store: StateStore,
        sums: Sums,
        lease: Lease,
        clock: Clock,
        observer: ObservesDrift,
        models_dir: Path,
        every_s: float,
        detect: Callable[[Shares], Changes] | None = None,
    ) -> None:
        super().__init__("recurve-drift", "a look at the live errors failed", every_s)
        self._registry = registry
        self._store = store
        self._sums = sums
        self._lease = lease
        self._clock = clock
        self._observer = observer
        self._models_dir = models_dir
        self._every_s = every_s
        self._apart = DetectorApart()
        self._detect = self._apart if detect is None else detect

    def stop(self) -> None:
        """End the thread; a look under way is broken off, another process takes it up."""
        self._stopped.set()
        self._apart.stop()
        super().stop()

    def look(self) -> bool:
        """Look at every model if it is time and nobody else is at it; True if it was done."""
        try:
            if not self._lease.take(self._every_s):
                for name, model in self._registry.models.items():  # as who looked last has it
                    _, history = self._history(name, model.labelled().spec.version)
                    self._observer.observe_drift(name, stands=history.change is not None, new=False)
                return False
            done = False
            try:
                self._look()
                done = True
            except DetectorFailed:
                done = not self._stopped.is_set()  # where it does not work, not every worker is to ask again at once
                raise
            finally:
                self._lease.give_back(done=done)
        except StoreUnavailable:
            return False  # every request says so as well
        except DetectorFailed as error:
            if not self._stopped.is_set():
                logger.error("live errors could not be looked at", extra={"why": str(error)})
            return False
        return True

    def _look(self) -> None:
        found = {}
        for name, model in self._registry.models.items():
            stored, history = self._history(name, model.labelled().spec.version)
            grown = self._grown(name, history)
            if grown is not history or stored is None:
                found[name] = stored, history, grown
            else:
                self._tell(name, history, new=False)
        asked = {name: grown.shares() for name, (_, _, grown) in found.items() if len(grown.minutes) >= ENOUGH}
        changes = self._detect(asked) if asked else {}
        for name, (stored, before, grown) in found.items():
            after = _after(grown, changes.get(name, []))
            if self._store.save(
                place(name),
                None if stored is None else stored.nonce,
                secrets.token_bytes(8),
                encode(place(name), after),
            ):
                self._tell(name, after, new=after.change is not None and after.change != before.change)

    def _history(self, model: str, version: int) -> tuple[Stored | None, History]:
        """What is kept of the version; a new one's history begins empty, and so does one of a clock that was ahead."""
        stored = self._store.load(place(model))
        if stored is not None:
            try:
                history = decode(place(model), stored.blob)
                if history.version == version and not self._is_to_come(history.latest):
                    return stored, history
            except RecordCorrupt as error:
                logger.error("a history of live errors begins anew", extra={"model": model, "why": error.detail})
        return stored, History(version)

    def _grown(self, model: str, history: History) -> History:
        """`history` with the minutes that were closed since; the very same if there are none."""
        closed = self._sums.closed(model, f"{SERIES}{history.version}", history.latest)
        if not closed:
            return history
        new = [ErrorMinute(start, *values[1:3]) for start, values in closed if len(values) >= 3]
        new = [minute for minute in new if minute.squared + minute.naive_squared > 0.0]
        return replace(history, minutes=(*history.minutes, *new)[-MOST:], latest=closed[-1].start)

    def _tell(self, model: str, history: History, *, new: bool) -> None:
        self._observer.observe_drift(model, stands=history.change is not None, new=new)
        if history.change is None:
            return
        drift = Drift(version=history.version, **history.change._asdict())
        if new:
            logger.warning("live errors have grown", extra={"model": model, **drift.model_dump(exclude={"format"})})
        folder = self._models_dir / model
        try:
            known = read_drift(folder)
            # also where the one who noticed it was ended before this, or the one before had a clock that was ahead
            if known is None or known.at < drift.at or self._is_to_come(known.at):
                report_drift(folder, drift)
        except (OSError, RepositoryError) as error:
            if new:
                logger.warning("the repository can't be told of it", extra={"model": model, "why": str(error)})

    def _is_to_come(self, at: float) -> bool:
        return at > self._clock() + MARGIN_S


def _after(history: History, changes: Sequence[tuple[int, int]]) -> History:
    """`history` as it goes on: from the last change on, knowing the last growth of the errors that is not over."""
    change, begin = history.change, 0
    for at, seen in changes:
        before, after = ratio(history.minutes[begin:at]), ratio(history.minutes[at : seen + 1])
        if before * WORSE < after < math.inf:
            change = Change(history.minutes[at].start, before, after)
        elif after * WORSE < before:
            change = None
        begin = seen + 1
    return replace(history, minutes=history.minutes[begin:], change=change)
