"""Counts kept aside and settled together: what a request pays for a metric is one append.

In multiprocess mode each change of a prometheus value takes a lock and writes to a shared file, a dozen times a
request. Here changes wait in memory and are added up every half second, and before every scrape of this process.
A worker that is killed takes what was not settled with it: at most half a second of counts.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from prometheus_client import Counter, Histogram

logger = logging.getLogger(__name__)

SETTLE_S = 0.5

T = TypeVar("T")


class TalliedCounter:
    """A labelled Counter whose increments wait to be settled."""

    def __init__(self, child: Counter) -> None:
        self._child = child
        self._pending: deque[float] = deque()
        self.add = self._pending.append  # a number, at the next settling: the append itself, no function around it

    def inc(self) -> None:
        """Add one, at the next settling."""
        self.add(1.0)

    def settle(self) -> None:
        """Add up what waits."""
        total = sum(drained(self._pending))
        if total:
            self._child.inc(total)


class TalliedHistogram:
    """A labelled Histogram whose observations wait to be settled.

    The library has no call for many observations at once; its buckets and sum are reached by their own names.
    """

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self._bounds = np.array(child._upper_bounds, np.float64)
        self._pending: deque[float] = deque()
        self.observe = self._pending.append  # a value, at the next settling
        self._many: deque[tuple[float, int]] = deque()

    def observe_many(self, value: float, times: int) -> None:
        """Observe `value` so many times, at the next settling."""
        self._many.append((value, times))

    def settle(self) -> None:
        """Sort what waits into the buckets."""
        values, many = drained(self._pending), drained(self._many)
        if not values and not many:
            return
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds))
        for value, times in many:
            counts[bisect_left(self._bounds, value)] += times
        self._child._sum.inc(sum(values) + sum(value * times for value, times in many))
        for bucket, count in zip(self._child._buckets, counts.tolist(), strict=True):
            if count:
                bucket.inc(count)


class Tally:
    """All tallied metrics of a process. Safe from any thread."""

    def __init__(self) -> None:
        self._settle: list[Callable[[], None]] = []
        self._children: dict[tuple[str | int, ...], Any] = {}
        self._settling = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def counter(self, child: Counter) -> TalliedCounter:
        """`child`, tallied."""
        counter = TalliedCounter(child)
        self._settle.append(counter.settle)
        return counter

    def histogram(self, child: Histogram) -> TalliedHistogram:
        """`child`, tallied."""
        histogram = TalliedHistogram(child)
        self._settle.append(histogram.settle)
        return histogram

    def counted(self, metric: Counter, *labels: str | int) -> TalliedCounter:
        """`metric` under `labels`, tallied; remembered, as the library's look-up takes a lock and makes strings."""
        key = (id(metric), *labels)
        child: TalliedCounter | None = self._children.get(key)
        if child is None:
            child = self._children.setdefault(key, self.counter(metric.labels(*labels)))
        return child

    def timed(self, metric: Histogram, *labels: str | int) -> TalliedHistogram:
        """`metric` under `labels`, tallied and remembered."""
        key = (id(metric), *labels)
        child: TalliedHistogram | None = self._children.get(key)
        if child is None:
            child = self._children.setdefault(key, self.histogram(metric.labels(*labels)))
        return child

    def settles(self, settle: Callable[[], None]) -> None:
        """Have `settle` called at every settling: for what adds up by itself."""
        self._settle.append(settle)

    def settle(self) -> None:
        """Bring every metric up to date."""
        with self._settling:
            for settle in tuple(self._settle):
                settle()

    def start(self) -> None:
        """Settle every half second in a thread of this process, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="recurve-tally", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; everything is settled then."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self.settle()

    def _run(self) -> None:
        while not self._stopped.wait(SETTLE_S):
            try:
                self.settle()
            except Exception:  # the thread's outermost handler: without it what is counted piles up for good
                logger.exception("settling metrics failed")


def drained(pending: deque[T]) -> list[T]:
    """What waits in `pending`, taken out by one thread at a time; what comes meanwhile stays for the next time."""
    return [pending.popleft() for _ in range(len(pending))]
