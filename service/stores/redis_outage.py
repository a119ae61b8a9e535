"""Leaving alone, for a while, a server that does not do what it is asked: others need not wait to learn the same."""

from __future__ import annotations

import random
import threading
import time

FIRST_S = 0.1
LONGEST_S = 1.0


class Outage:
    """After a failure nobody asks for a while, then one does; each failure more doubles the while, up to a second.

    Any thread. `why` is what the last failure was.
    """

    def __init__(self) -> None:
        self.why = ""
        self._guard = threading.Lock()
        self._while_s = 0.0  # 0: all is well
        self._until = 0.0

    @property
    def in_progress(self) -> bool:
        """Whether the last that is known is a failure."""
        return self._while_s > 0

    def ask(self) -> bool | None:
        """None if all is well and True if the caller is the one to find out: both go on. False: leave it alone."""
        if not self._while_s:
            return None
        with self._guard:
            now = time.monotonic()
            if now < self._until:
                return False
            self._until = now + self._while_s  # until this caller knows
            return True

    def failed(self, why: str, *, trial: bool) -> None:
        """The one asked does not do it, and trying for a second has not helped; or once, if it was a `trial`."""
        with self._guard:
            self.why = why
            now = time.monotonic()
            if now < self._until and not trial:
                return  # others that began while all was well have said so
            self._while_s = min(LONGEST_S, max(FIRST_S, 2 * self._while_s))
            self._until = now + self._while_s * random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """The one asked does it."""
        if self._while_s:
            with self._guard:
                self._while_s = self._until = 0.0
