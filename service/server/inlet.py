"""A body that is read as it comes, between the event loop and a thread."""

from __future__ import annotations

import threading


class Inlet:
    """A `wsgi.input` that never waits: `feed` and `end` are called in the event loop, `read` in a thread."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self.ended = False

    @property
    def size(self) -> int:
        """Bytes that wait to be read."""
        return len(self._waiting)

    @property
    def is_ready(self) -> bool:
        """Whether `read` has anything to say."""
        return bool(self._waiting) or self.ended

    def feed(self, piece: bytes) -> None:
        """A piece of the body."""
        with self._lock:
            self._waiting += piece

    def end(self) -> None:
        """That was all of it."""
        self.ended = True

    def read(self, size: int = -1) -> bytes | None:
        """At most `size` bytes of what is there; none at the end, None where there is nothing yet."""
        with self._lock:
            ended, most = self.ended, len(self._waiting) if size < 0 else size
            piece = bytes(self._waiting[:most])
            del self._waiting[:most]
        return piece or (b"" if ended else None)
