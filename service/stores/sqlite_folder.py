"""The folder of a sqlite store: which files it has, and how it comes to be.

store.json          {"format": 1, "shards": 8, "hash": "blake2b-64"}: where a key is to be found; written last
shard-0.db …        one SQLite file per shard, in WAL mode
shard-0.lock …      writers of a shard take turns on it
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from pathlib import Path

from service.stores.errors import StoreNotOpened

SHARDS = 8
SETTINGS = "store.json"
_FORMAT = {"format": 1, "shards": SHARDS, "hash": "blake2b-64"}
SCHEMA = 1
PAGE_BYTES = 4096  # what a save writes at the least: the record of a model of 128 units fits in


def shard_of(path: str) -> int:
    """The shard that keeps the key `path`: the first 64 bits of its blake2b, modulo the number of shards."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big") % SHARDS


def shard_file(folder: Path, number: int) -> Path:
    """The database file of a shard."""
    return folder / f"shard-{number}.db"


def lock_file(database: Path) -> Path:
    """The file on which the writers of a shard take turns."""
    return database.with_suffix(".lock")


def checkpoint_lock(folder: Path) -> Path:
    """The file on which the checkpointers of all processes take turns."""
    return folder / "checkpoint.lock"


def is_store(folder: Path) -> bool:
    """Whether a store was ever made in `folder`."""
    return (folder / SETTINGS).is_file()


def prepare(folder: Path) -> None:
    """Makes `folder` a store if it is none yet; StoreNotOpened if it is not writable or of another layout."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise StoreNotOpened(f"{folder} is not writable for this user; give it a writable folder or volume")
        with (folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / SETTINGS).exists():
                _create(folder)
            _check(folder)
    except (OSError, sqlite3.Error) as error:
        raise StoreNotOpened(f"{folder} can't hold records ({error}); give it a writable folder or volume") from error


def _create(folder: Path) -> None:
    for number in range(SHARDS):
        connection = sqlite3.connect(shard_file(folder, number), isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=OFF")  # each file is synced below, once
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS records (key TEXT NOT NULL UNIQUE, nonce BLOB, blob BLOB)")
            connection.execute(f"PRAGMA user_version={SCHEMA}")
        finally:
            connection.close()
        lock_file(shard_file(folder, number)).touch()
        fsync(shard_file(folder, number))
    fresh = folder / f".{SETTINGS}.new"
    with fresh.open("w") as file:
        json.dump(_FORMAT, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / SETTINGS)
    fsync(folder)


def fsync(path: Path) -> None:
    """What the file or folder at `path` holds is on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(folder: Path) -> None:
    try:
        found = json.loads((folder / SETTINGS).read_bytes())
    except ValueError as error:
        raise StoreNotOpened(f"{folder / SETTINGS} is damaged; it should read {json.dumps(_FORMAT)}") from error
    if found != _FORMAT:
        raise StoreNotOpened(
            f"{folder / SETTINGS} says {json.dumps(found)}, this release reads {json.dumps(_FORMAT)}; "
            "use the release that wrote it, or another folder"
        )
    files = [shard_file(folder, number) for number in range(SHARDS)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise StoreNotOpened(f"{folder} has lost {', '.join(missing)}; restore it, or start with an empty folder")
    for file in files:
        if not os.access(file, os.R_OK | os.W_OK):
            raise StoreNotOpened(f"{file} is not writable for this user; give it a writable folder or volume")
        try:
            version = _schema(file)
        except sqlite3.OperationalError:
            continue  # no room, or in use by another program: that passes, and until then every verb says so
        if version != SCHEMA:
            raise StoreNotOpened(f"{file} has schema {version}, this release reads {SCHEMA}; use the one that wrote it")


def _schema(file: Path) -> int:
    connection = connect(file)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def connect(database: Path, wait_s: float = 2.0) -> sqlite3.Connection:
    """A connection to an existing shard, to be guarded by the caller's lock; it commits each statement."""
    uri = f"{database.absolute().as_uri()}?mode=rw"  # never creates: a lost shard must not look like an empty one
    return sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
