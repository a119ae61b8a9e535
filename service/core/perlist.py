"""What is made of a list of clients, remembered: those of a fleet come together again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

FEW = 8  # what is made of fewer is made as fast as it is found
MOST_LISTED = 16_384  # in all lists together; then all are forgotten


class PerList(Generic[K, T]):
    """One thing for each list, as a tuple: what depends on nothing but who is in it.

    Safe from any thread, and without a lock that a fork could find taken: what two threads make at once, one keeps.
    """

    def __init__(self, make: Callable[[tuple[K, ...]], T], most: int = MOST_LISTED) -> None:
        self._make = make
        self._most = most
        self._made: dict[tuple[K, ...], T] = {}

    def of(self, each: tuple[K, ...]) -> T:
        """What `make` makes of this list."""
        known = self._made.get(each)
        if known is None:
            known = self._make(each)
            if FEW <= len(each) <= self._most:
                if sum(map(len, tuple(self._made))) + len(each) > self._most:
                    self._made = {}
                self._made[each] = known
        return known
