"""Disks that run full: a small one of our own where we may mount, else a limit on how large files may get."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

SIZE = 16 * 2**20  # little enough for the logs alone to fill it between two checkpoints
GIVEN = 2**20  # at least: what the logs have taken up, no ballast gives back
GROWN = 150_000  # bytes that no file may exceed under the limit


class Room(Protocol):
    """Where a store is, and how its room is taken and given back."""

    def take(self) -> None:
        """From now on nothing can be added."""
        ...

    def give(self) -> None:
        """There is room again."""
        ...


class SmallDisk:
    """A tmpfs on `folder`, taken up by a file of ours; it is made larger where taking that away gives no room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = SIZE
        self._ballast = folder / "ballast"

    def take(self) -> None:
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def give(self) -> None:
        self._ballast.unlink()
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < GIVEN:
            self._size += GIVEN
            subprocess.run(["mount", "-o", f"remount,size={self._size}", str(self._folder)], check=True)


class FileLimit:
    """RLIMIT_FSIZE of the processes that `pids` names when they are asked for: they write no file beyond it."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def take(self) -> None:
        self._limit(GROWN)

    def give(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, most: int) -> None:
        for pid in (*self._pids(), *self._pids()):  # again, for one that was forked meanwhile
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """A full-able disk at `folder`, made and unmounted; None where this user may not mount."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "recurve-chaos", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield SmallDisk(folder) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
