"""Journals on disk: each is written by one process, which holds its lock, and read once nobody does.

    <folder>/<nanoseconds>-<pid>-<random>.open       being written, or left by a killed process
    <folder>/<nanoseconds>-<pid>-<random>.closed     complete; whoever compacts it deletes it

The kernel drops a lock with its process, so an `.open` journal whose lock can be had is abandoned.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from models.disk import fsync, try_lock
from models.journal import MAGIC

JOURNAL = "journal"
OPEN, CLOSED = ".open", ".closed"


class JournalFile:
    """One journal being written by this process; `synced` bytes of it are on the medium.

    Every method may raise OSError. After one that did, `take_back` cuts off what may be half-written.
    """

    def __init__(self, folder: Path, head: bytes) -> None:
        """Begin a journal in `folder` with MAGIC and the frames of `head`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.path = folder / f"{time.time_ns():019d}-{os.getpid()}-{secrets.token_hex(4)}{OPEN}"
        descriptor = try_lock(self.path, create=True)
        if descriptor is None:
            raise BlockingIOError(f"{self.path} is locked by another process")  # which took it for abandoned
        self._descriptor = descriptor
        self.size = self.synced = 0
        try:
            self.append(MAGIC + head)
            self.sync()
            fsync(folder)
        except BaseException:
            self.abandon()
            with suppress(OSError):
                self.path.unlink()  # nothing but its head is lost
            raise

    def append(self, frames: bytes) -> None:
        """Write whole frames at the end."""
        left = memoryview(frames)
        while left:
            written = os.write(self._descriptor, left)
            self.size += written
            left = left[written:]

    def sync(self) -> None:
        """Return once all that was appended is on the medium. FileNotFoundError if the file was deleted meanwhile."""
        os.fsync(self._descriptor)
        if os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(f"{self.path} was deleted while it was written")
        self.synced = self.size

    def take_back(self) -> None:
        """Cut off everything behind what is on the medium, to be appended again."""
        os.ftruncate(self._descriptor, self.synced)
        os.lseek(self._descriptor, self.synced, os.SEEK_SET)
        self.size = self.synced

    def close(self) -> None:
        """Give the journal to whoever compacts: it is complete. It must be synced."""
        os.rename(self.path, self.path.with_suffix(CLOSED))
        fsync(self.path.parent)
        self.abandon()

    def abandon(self) -> None:
        """Let go of it as it is: it counts as left by a killed process."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def complete_journals(folder: Path) -> list[Path]:
    """The closed journals of `folder`, oldest first, abandoned ones among them: those are closed by this."""
    found = []
    for path in _listed(folder):
        closed = _close_abandoned(path) if path.suffix == OPEN else path
        if closed is not None and closed.suffix == CLOSED:
            found.append(closed)
    return sorted(found)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry) for entry in os.scandir(folder))
    except FileNotFoundError:
        return []


def _close_abandoned(path: Path) -> Path | None:
    """The journal under its closed name; None if its writer is alive, or was quicker to close it."""
    try:
        descriptor = try_lock(path, create=False)
    except FileNotFoundError:
        return None
    if descriptor is None:
        return None
    try:
        if os.fstat(descriptor).st_size == 0:  # killed at once, or about to lock it: then it sees that it is gone
            path.unlink(missing_ok=True)
            return None
        closed = path.with_suffix(CLOSED)
        try:
            os.rename(path, closed)
        except FileNotFoundError:
            return None
        fsync(path.parent)
        return closed
    finally:
        os.close(descriptor)
