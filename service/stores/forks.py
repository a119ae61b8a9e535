"""Forking with files open: whoever watches is quiet and holds nothing open at the moment of a fork.

SQLite keeps tables of its file locks per process, and a child that inherits them believes in locks it does not
have: even connections it opens afresh are unsafe (sqlite.org/howtocorrupt.html, 2.6). So everything is given back
before the fork, and both processes open their own again when they next need it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must not be forked while it is at work."""

    def before_fork(self) -> None:
        """Wait until no thread is at work, let none begin, and give back what is open."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """Let work begin again; in the `child`, only the forking thread goes on living."""
        ...


class _Watch:
    def __init__(self) -> None:
        self._watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._held: list[Forkable] = []
        self._registered = False
        self._forking = threading.Lock()

    def add(self, one: Forkable) -> None:
        self._watched.add(one)
        if not self._registered:
            self._registered = True
            os.register_at_fork(
                before=self._before,
                after_in_parent=lambda: self._after(child=False),
                after_in_child=lambda: self._after(child=True),
            )

    def _before(self) -> None:
        self._forking.acquire()  # two threads may fork at once
        self._held = list(self._watched)
        for one in self._held:
            one.before_fork()

    def _after(self, *, child: bool) -> None:
        held, self._held = self._held, []
        for one in held:
            one.after_fork(child=child)
        self._forking.release()


_WATCH = _Watch()


def watch(one: Forkable) -> None:
    """From now on `one` is told of every os.fork of this process, for as long as it lives."""
    _WATCH.add(one)
