"""What is made of a list of clients, remembered: those of a fleet come together again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MOST_LISTED = 16_384  # clients in all lists together; then all are forgotten


class PerList(Generic[K, T]):
    """One thing for each list, as a tuple: what depends on nothing but who is in it. Safe from any thread."""

    def __init__(self, make: Callable[[tuple[K, ...]], T], most: int = MOST_LISTED) -> None:
        self._make = make
        self._most = most
        self._made: dict[tuple[K, ...], T] = {}
        self._listed = 0
        self._lock = Lock()

    def of(self, each: tuple[K, ...]) -> T:
        """What `make` makes of this list."""
        known = self._made.get(each)
        if known is not None:
            return known
        made = self._make(each)
        with self._lock:
            if self._listed + len(each) > self._most:
                self._made, self._listed = {}, 0
            if len(each) <= self._most:
                self._made[each] = made
                self._listed += len(each)
        return made
