"""One shard of a sqlite store: a file, this process's connection to it, and the turns its writers take."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from service.core.errors import StoreUnavailable
from service.core.patience import give_way, hurried, is_hurried
from service.core.ports import Save, Stored
from service.stores import sqlite_statements as sql
from service.stores.sqlite_folder import connect, lock_file
from service.stores.sqlite_room import Room
from service.stores.sqlite_together import AT_ONCE, save_together
from service.stores.sqlite_turn import SHORT_S, WAIT_S, Turn

T = TypeVar("T")

_STORED = partial(tuple.__new__, Stored)  # of a pair: a named tuple's own constructor is three times as slow

# primary result codes (sqlite.org/rescode.html)
_NOT_BEGUN = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_HARMLESS = _NOT_BEGUN | {sqlite3.SQLITE_FULL}


class Shard:
    """Atomic verbs on one file. `dirty` and `full` tell the checkpointer what has happened since it last looked."""

    def __init__(self, file: Path, synchronous: str) -> None:
        self.file = file
        self.dirty = False
        self.full = False
        self._synchronous = synchronous
        self._guard = threading.Lock()
        self._turn = Turn(lock_file(file))
        self._room = Room()
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    def load(self, path: str) -> Stored | None:
        """The record under `path`, None if there is none."""
        try:
            rows = self._read(sql.LOAD, (path,))
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        return Stored(*rows[0]) if rows else None

    def save(self, path: str, old: bytes | None, new: bytes, blob: bytes) -> bool:
        """StateStore.save. A failed commit may still have happened, so the nonce found afterwards decides."""
        try:
            return self._write(*sql.saving(path, old, new, blob))
        except sqlite3.Error as error:
            refused = _unavailable(error)
            if _code(error) not in _NOT_BEGUN:
                found = self._found(path, refused)
                if found == new:
                    return True
                if found != old:  # others have written: before it, or after
                    raise _in_doubt(refused) from error
            raise refused from error

    def load_many(self, paths: Sequence[str]) -> list[Stored | None]:
        """The record under each path."""
        found: dict[str, Stored] = {}
        try:
            for start in range(0, len(paths), AT_ONCE):
                some = tuple(paths[start : start + AT_ONCE])
                rows = self._read(sql.load_many(len(some)), some)
                if rows:
                    keys, nonces, blobs = zip(*rows, strict=True)
                    found.update(zip(keys, map(_STORED, zip(nonces, blobs, strict=True)), strict=True))
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        return [found.get(path) for path in paths]

    def save_many(self, paths: Sequence[str], saves: Sequence[Save]) -> list[bool]:
        """What `save` says of each, all in one transaction: what wins is stored together or, if it fails, not at all.

        As with `save`, the nonces found after a failed commit decide; StoreUnavailable unless they are all there.
        """
        answers: list[bool] = []
        try:
            self._change(partial(save_together, paths=paths, saves=saves, answers=answers))
        except sqlite3.Error as error:
            won = {path: save[2] for path, save, answer in zip(paths, saves, answers, strict=False) if answer}
            if len(answers) < len(saves) or not self._has(won):
                raise _unavailable(error) from error
        return answers

    def delete(self, path: str, old: bytes | None = None) -> bool:
        """StateStore.delete."""
        try:
            return self._write(sql.DELETE, (path,)) if old is None else self._write(sql.DELETE_IF, (path, old))
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def keys(self, after: str, end: str, limit: int) -> list[str]:
        """Up to `limit` keys between two texts, rising; read from the index alone."""
        try:
            return [key for (key,) in self._read(sql.KEYS, (after, end, limit))]
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def rows(self, after: int, limit: int) -> list[tuple[int, bytes, bytes, bytes]]:
        """Up to `limit` records (rowid, key, nonce, blob) beyond a rowid, rising; a key as it is, text or not."""
        try:
            return self._read(sql.ROWS, (after, limit))
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def count(self, after: str, end: str) -> int:
        """How many keys lie between two texts."""
        try:
            return int(self._read(sql.COUNT, (after, end))[0][0])
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def connect(self) -> sqlite3.Connection:
        """A new connection with this shard's pragmas."""
        connection = connect(self.file, WAIT_S)
        try:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA temp_store=MEMORY")  # what a statement would take back: no file for it
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Gives everything back once the verb at work is done; later verbs raise StoreUnavailable."""
        with self._guard:
            self._closed = True
            self._give_back()

    def before_fork(self) -> None:
        """Waits for the verb at work and lets no other begin."""
        self._guard.acquire()
        self._give_back()

    def after_fork(self, *, child: bool) -> None:
        """Lets verbs begin again, with a connection of their own."""
        if child:
            self.dirty = self.full = False  # the parent's checkpointer sees to what the parent wrote
        self._guard.release()

    def _found(self, path: str, refused: StoreUnavailable) -> bytes | None:
        """The nonce under `path` after a save was refused that may have happened; in doubt if it is not to be had."""
        try:
            with hurried(False):  # something may have moved
                stored = self.load(path)
        except StoreUnavailable as error:
            raise _in_doubt(refused) from error
        return None if stored is None else stored.nonce

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        self._enter()
        try:
            return (self._connection or self._open()).execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._failed(error)
            raise
        except UnicodeDecodeError as error:
            self._failed(unread := _unread(error))
            raise unread from error
        finally:
            self._guard.release()

    def _has(self, nonces: Mapping[str, bytes]) -> bool:
        """Whether what is stored now under each path has its nonce."""
        found = self.load_many(tuple(nonces))
        return all(one is not None and one.nonce == own for one, own in zip(found, nonces.values(), strict=True))

    def _write(self, statement: str, values: tuple[Any, ...]) -> bool:
        return self._change(lambda connection: connection.execute(statement, values).rowcount == 1)

    def _change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        end = time.monotonic() + WAIT_S
        self._enter()
        try:
            connection = self._connection or self._open()
            self._turn.take(end)
            try:
                if self.full:
                    self._make_room(connection)
                return change(connection)
            finally:
                self.dirty = True
                self._turn.give()
        except sqlite3.Error as error:
            self._failed(error)
            raise
        except UnicodeDecodeError as error:
            self._failed(unread := _unread(error))
            raise unread from error
        finally:
            self._guard.release()

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """In the writers' turn, on a disk that was full: what has no room is refused before anything is written."""
        try:
            self.full = not self._room.make(connection)
        except sqlite3.Error as error:
            self._failed(error)
            raise _unavailable(error) from error

    def _enter(self) -> None:
        if self._guard.acquire(blocking=False):
            return
        if not self._guard.acquire(timeout=SHORT_S if is_hurried() else WAIT_S):
            give_way()
            raise StoreUnavailable(f"this shard of the store was busy for {WAIT_S:g} s")

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            self._connection = self.connect()
        except sqlite3.Error as error:  # nothing was begun, so nothing is in doubt
            self._failed(error)
            raise _unavailable(error) from error
        return self._connection

    def _failed(self, error: sqlite3.Error) -> None:
        """After an error the next verb opens afresh: whatever was replaced, mounted or repaired is found again.

        Not after those that leave a connection as it was; on a full disk a new one might find no room for its index.
        """
        code = _code(error)
        self.full = self.full or code in _NO_ROOM
        if code not in _HARMLESS or (self._connection is not None and self._connection.in_transaction):
            self._give_back()

    def _give_back(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        self._turn.close()


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 where the driver has none."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _unread(error: UnicodeDecodeError) -> sqlite3.Error:
    """What SQLite said of a damaged file, quoting it, and the driver could not read as text."""
    return sqlite3.DatabaseError(bytes(error.object).decode(errors="replace"))


def _unavailable(error: sqlite3.Error) -> StoreUnavailable:
    if _code(error) in _NO_ROOM:
        return StoreUnavailable(f"the store's disk is full or failing ({error}); it goes on once there is room")
    return StoreUnavailable(f"the store can't be read or written ({error})")


def _in_doubt(refused: StoreUnavailable) -> StoreUnavailable:
    return StoreUnavailable(f"{refused.detail}; it may be stored", in_doubt=True)
