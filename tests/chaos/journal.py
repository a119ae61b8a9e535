"""A journal of what SQLite does to its files, written by SQLite's own processes as they do it.

`watch` puts itself between SQLite and the operating system, in the table of functions that this process's SQLite opens
files by (sqlite3_vfs, sqlite.org/vfs.html), and passes every call on. Each write, truncation, creation, deletion and
sync becomes one event, appended by one write(2), so that the events of several processes stand in the order in which
they happened: what touches the same bytes is ordered by SQLite's locks. Syncs are written down and not done: nothing
depends on them until the power goes, and that is played from the journal (tests/chaos/disk.py).
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

CREATE, DELETE, WRITE, TRUNCATE, SYNC, SYNCED, TOLD = b"C", b"D", b"W", b"T", b"S", b"Y", b"A"
_HEAD = struct.Struct("<cHIQ")  # kind, length of the name, length of the data, number
_KEEP: list[Any] = []  # callbacks that SQLite knows must never be collected
_SYNCS = itertools.count()

_SQLITE_OPEN_CREATE = 0x4
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)  # the path as an address: SQLite keeps it, so it must be SQLite's own and no copy
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("zName", ctypes.c_char_p),
        ("pAppData", ctypes.c_void_p),
        ("xOpen", _OPEN),
        ("xDelete", _DELETE),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("xClose", _CLOSE),
        ("xRead", ctypes.c_void_p),
        ("xWrite", _WRITE),
        ("xTruncate", _TRUNCATE),
        ("xSync", _SYNC),
        ("rest", ctypes.c_void_p * 13),  # xFileSize to xUnfetch: passed on as they are
    )


class Event(NamedTuple):
    """One entry: `number` is an offset (W), a size (T), which sync it is (S begins, Y done) or a step told (A)."""

    kind: bytes
    name: str
    number: int
    data: bytes


class Journal:
    """A file that processes append events to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, kind: bytes, name: str, number: int = 0, data: bytes = b"") -> None:
        """Appends one event."""
        content = name.encode()
        event = _HEAD.pack(kind, len(content), len(data), number) + content + data
        if os.write(self._descriptor, event) != len(event):
            raise OSError("the journal has no room")

    def events(self) -> Iterator[Event]:
        """All events so far."""
        with self._path.open("rb") as file:
            while head := file.read(_HEAD.size):
                kind, name, size, number = _HEAD.unpack(head)
                yield Event(kind, file.read(name).decode(), number, file.read(size))

    def told(self, name: str, step: int) -> None:
        """Notes that a client was told that `step` is kept."""
        self.add(TOLD, name, step)


def watch(journal: Journal) -> None:
    """From now on `journal` hears of all that this process, and those forked from it, have SQLite do to files."""
    vfs = _default_vfs()
    open_file, delete_file = _copy(_OPEN, vfs.xOpen), _copy(_DELETE, vfs.xDelete)
    tables: dict[int, _Methods] = {}  # by the address of the table that they stand in for
    names: dict[int, str] = {}  # open files by address

    def opened(this: int, place: int | None, file: int, flags: int, out: Any) -> int:
        path = None if place is None else ctypes.string_at(place)
        there = path is None or os.path.exists(path)
        code = open_file(this, place, file, flags, out)
        if code == 0 and path is not None:
            name = os.path.basename(path).decode()
            if not there and flags & _SQLITE_OPEN_CREATE:
                journal.add(CREATE, name)
            methods = ctypes.c_void_p.from_address(file)  # the first member of every sqlite3_file
            assert methods.value is not None
            if methods.value not in tables:
                tables[methods.value] = _table(_Methods.from_address(methods.value), journal, names)
            names[file] = name
            methods.value = ctypes.addressof(tables[methods.value])
        return int(code)

    def deleted(this: int, path: bytes, sync_folder: int) -> int:
        code = delete_file(this, path, sync_folder)
        if code == 0:
            journal.add(DELETE, os.path.basename(path).decode())
        return int(code)

    _KEEP.extend((_OPEN(opened), _DELETE(deleted), tables))
    vfs.xOpen, vfs.xDelete = _KEEP[-3], _KEEP[-2]


def _table(given: _Methods, journal: Journal, names: dict[int, str]) -> _Methods:
    """A table of functions like `given` that also tells the journal."""
    close, write, truncate = _copy(_CLOSE, given.xClose), _copy(_WRITE, given.xWrite), _copy(_TRUNCATE, given.xTruncate)

    def closed(file: int) -> int:
        names.pop(file, None)
        return int(close(file))

    def written(file: int, content: int, size: int, offset: int) -> int:
        code = write(file, content, size, offset)
        journal.add(WRITE, names[file], offset, ctypes.string_at(content, size))
        return int(code)

    def truncated(file: int, size: int) -> int:
        code = truncate(file, size)
        journal.add(TRUNCATE, names[file], size)
        return int(code)

    def synced(file: int, flags: int) -> int:
        which = (os.getpid() << 32) + next(_SYNCS)
        journal.add(SYNC, names[file], which)
        journal.add(SYNCED, names[file], which)
        return 0

    table = _Methods.from_buffer_copy(given)
    table.xClose, table.xWrite, table.xTruncate = _CLOSE(closed), _WRITE(written), _TRUNCATE(truncated)
    table.xSync = _SYNC(synced)
    _KEEP.append((table.xClose, table.xWrite, table.xTruncate, table.xSync))
    return table


def _copy(kind: Any, function: Any) -> Any:
    """The C function itself: a field read from a structure changes with the structure."""
    return kind(ctypes.cast(function, ctypes.c_void_p).value)


def _default_vfs() -> _Vfs:
    """The table that this process's SQLite works by: the first member of every open database (struct sqlite3).

    Found by way of a connection rather than by symbol, so that it is found as well where SQLite is linked statically.
    """
    connection = sqlite3.connect(":memory:")
    database = ctypes.c_void_p.from_address(id(connection) + object.__basicsize__)
    assert database.value is not None
    place = ctypes.c_void_p.from_address(database.value)
    assert place.value is not None
    vfs = _Vfs.from_address(place.value)
    connection.close()
    if vfs.zName != b"unix":
        raise RuntimeError(f"SQLite's default VFS is called {vfs.zName!r}, not unix")
    return vfs
