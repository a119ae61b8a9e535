"""What a folder holds at each moment of a piece of work in this process: what a kill -9 right then would leave of it.

A killed process leaves the files as they stand, without what it had not yet given to the kernel, and none of its locks.
So does a copy. The work has no hooks: Python says by itself what it is about to do to a file.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.mkdir": 2, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1}  # where a dir_fd is told
_watching: Moments | None = None


class Moments:
    """Copies `folder` right before each change to it; `copies` in order, `calls` what was about to be done."""

    def __init__(self, folder: Path, into: Path) -> None:
        self._folder, self._into, self._prefix = folder, into, str(folder.resolve())
        self.copies: list[Path] = []
        self.calls: list[str] = []

    @contextmanager
    def of(self) -> Iterator[None]:
        """Watch what is done within the block."""
        global _watching  # an audit hook stays for good: this one is told by that when to look
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked.append(True)
        _watching = self
        try:
            yield
        finally:
            _watching = None

    def saw(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Something is about to be done; a copy if it changes the folder."""
        global _watching
        if not self._concerns(event, arguments):
            return
        _watching = None  # not what is done for the copy
        try:
            copy = self._into / str(len(self.copies))
            shutil.copytree(self._folder, copy, symlinks=True)
        finally:
            _watching = self
        self.copies.append(copy)
        self.calls.append(event)

    def _concerns(self, event: str, arguments: tuple[Any, ...]) -> bool:
        path = arguments[0]
        if event == "open" and not (arguments[2] & WRITES):
            return False
        if isinstance(path, int):
            return False
        at = CHANGES.get(event, len(arguments))
        beside = arguments[at] if at < len(arguments) and isinstance(arguments[at], int) else -1
        where = os.fsdecode(path)
        if beside >= 0:
            where = os.path.join(os.readlink(f"/proc/self/fd/{beside}"), where)
        return os.path.abspath(where).startswith(self._prefix)


_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is not None and (event == "open" or event in CHANGES):
        _watching.saw(event, arguments)
