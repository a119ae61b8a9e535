"""What the repository needs of a file system: locks, durable writes, and a walk that trusts nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import RepositoryBusy


def try_lock(path: Path, *, create: bool) -> int | None:
    """A descriptor that holds the exclusive lock of file `path`; None if somebody else does.

    The kernel drops the lock with the descriptor, however its process ends. FileNotFoundError unless `create`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Holds the exclusive lock of file `path`, among threads and processes alike; RepositoryBusy after `wait_s`."""
    end = time.monotonic() + wait_s
    while (descriptor := try_lock(path, create=True)) is None:
        if time.monotonic() >= end:
            raise RepositoryBusy(path, wait_s)
        time.sleep(0.01)
    try:
        yield
    finally:
        os.close(descriptor)


def fsync(path: Path) -> None:
    """Returns once the file's bytes, or the folder's entries, are on the medium."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Returns once everything under `folder` is on the medium: files first, then folders from the leaves up."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            fsync(Path(parent, name))
        fsync(Path(parent))


def replace_durably(path: Path, content: bytes) -> None:
    """Atomically replaces file `path`: after a crash it is the old or the new one.

    One writer at a time: the caller holds a lock.
    """
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    fsync(path.parent)


def regular_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Every file under `folder` by its '/'-separated relative name, and those that are neither file nor folder.

    Links are never followed: they, sockets and devices are named in the second part.
    """
    files: dict[str, Path] = {}
    odd: list[str] = []
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                files[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                odd.append(path.relative_to(folder).as_posix())
    return files, odd


def sha256(path: Path) -> str:
    """The hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
