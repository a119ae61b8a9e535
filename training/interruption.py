"""Being asked to stop, by Ctrl-C or SIGTERM: heard once, never lost, and too late once a version is being published.

A handler that only raises KeyboardInterrupt is not enough. Where it strikes, a library's bare ``except`` or a native
callback may swallow it, or Python only prints it (in ``__del__``), and the training goes on to publish. So the handler
also remembers, and whoever is about to begin something asks `check`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """What a process knows of being asked to stop. Signals are a process's own, so there is one of these in it."""

    def __init__(self) -> None:
        self.asked = False
        self._late = False
        self._held = 0

    def listen(self) -> None:
        """Hear SIGINT and SIGTERM from now until the process ends. Call it in the main thread."""
        for each in SIGNALS:
            signal.signal(each, self._hear)
        printed = sys.unraisablehook

        def unless_asked(what: sys.UnraisableHookArgs) -> None:
            if not issubclass(what.exc_type, KeyboardInterrupt):  # those are remembered, not lost
                printed(what)

        sys.unraisablehook = unless_asked

    @property
    def stops(self) -> bool:
        """Whether a stop was asked for before it was too late: then nothing is published."""
        return self.asked and not self._late

    def check(self) -> None:
        """KeyboardInterrupt if a stop was asked for in time."""
        if self.stops:
            raise KeyboardInterrupt

    def publishing(self) -> None:
        """The last moment to stop: KeyboardInterrupt if that was asked for, and from here on nothing raises it.

        So a version appears with its label and is told of, or it does not appear at all.
        """
        self._late = True  # first, so that no signal falls between the question and the deed
        if self.asked:
            self._late = False
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """A first signal within the block is raised at its end: for libraries that break when they are interrupted."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self.check()

    def leave(self) -> None:
        """The process is on its way out: there is nothing left to stop, and its exit code counts."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        # Once KeyboardInterrupt has left a piece of source text (a dataclass is made by one), Python ends the process
        # by SIGINT whatever its exit code, though it was caught. It forgets that when it runs another: CPython's
        # unhandled_keyboard_interrupt, in pythonrun.c.
        exec("")

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        impatient, self.asked = self.asked, True
        if not self._late and (impatient or not self._held):
            raise KeyboardInterrupt


INTERRUPTION = Interruption()
