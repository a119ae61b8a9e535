"""Turns of requests that bring many clients: no two at the same client at once in this process.

A request has all of its clients or none, so that none waits for another that waits for it. The predictor's requests do
not take these turns: between them and these the store's compare-and-set decides, as between processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.core.types import ClientKey


class Turns:
    """Who is at work on which clients."""

    def __init__(self) -> None:
        self._held: set[ClientKey] = set()
        self._changed = threading.Condition()

    @contextmanager
    def of(self, keys: Sequence[ClientKey], bound_s: float) -> Iterator[bool]:
        """Within, no other request is at these clients; yields False where that was not to be had for `bound_s`."""
        end = time.monotonic() + bound_s
        with self._changed:
            while not self._held.isdisjoint(keys):
                if not self._changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    break
            else:
                self._held.update(keys)
                end = 0.0
        if end:
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._held.difference_update(keys)
                self._changed.notify_all()
