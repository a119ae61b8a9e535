"""A thread of each worker that looks now and then whether something is due, until it is stopped."""

from __future__ import annotations

import logging
import random
import threading

LOOK_S = 15.0  # between two looks, at most


class Looking:
    """Calls `look` in a thread of its own between `start` and `stop`, about four times in `every_s`.

    Workers look at unlike moments. Whatever a look raises is logged as `failed`, and the next one comes.
    """

    def __init__(self, thread: str, failed: str, every_s: float) -> None:
        self._name = thread
        self._failed = failed
        self._look_s = min(LOOK_S, every_s / 4)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> bool:
        """Do what is due, if nobody else is at it; True if it was done."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it is at; another process may go on at once."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._look_s * random.uniform(0.5, 1.0)):
            try:
                self.look()
            except Exception:  # the thread's outermost handler: the next look may fare better
                logging.getLogger(type(self).__module__).exception(self._failed)
