"""A copy of a sqlite store's folder, taken while the service goes on; it is a store itself.

Each shard is copied out of one read transaction: the copy holds every record as it stood at one moment, and no writer
waits. The shards are copied one after the other. So whatever was acknowledged before the copy began is in it; what is
acknowledged meanwhile is in it or not, and each record is whole, with its protection of retries.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from service.core.errors import RecurveError
from service.stores.sqlite_folder import SCHEMA, SETTINGS, SHARDS, connect, fsync, is_store, lock_file, shard_file

REPORT = "backup.json"
_FORMAT = "recurve-backup/1"
_PAGES = 512  # copied between two calls of `progress`


class BackupFailed(RecurveError):
    """No copy was made; the detail says what to do."""

    code = "backup_failed"


class Backup(NamedTuple):
    """What a copy holds: records of each shard, and bytes in all."""

    records: tuple[int, ...]
    size: int


def bytes_to_copy(source: Path) -> int:
    """About how large a copy of the store in `source` will be. BackupFailed if there is none."""
    if not is_store(source):
        raise BackupFailed(f"{source} holds no records: it has no {SETTINGS}")
    files = [shard_file(source, number) for number in range(SHARDS)]
    return sum(file.stat().st_size for file in (*files, *map(_log_of, files)) if file.exists())


def back_up(source: Path, target: Path, created: str, progress: Callable[[int], None] = lambda done: None) -> Backup:
    """Copy the store in `source` to the new folder `target`, which appears when the copy is whole, synced and checked.

    `progress` is told the bytes copied since it was last told. BackupFailed; a run that was stopped leaves
    `target`.part, which the next run begins anew.
    """
    needed = bytes_to_copy(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackupFailed(f"{target} is there already; name a new folder")
    part = target.with_name(f"{target.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            for left in part.iterdir():  # by a run that was stopped
                left.unlink()
            free = shutil.disk_usage(part).free
            if free < needed:
                raise BackupFailed(f"the copy needs {needed / 2**20:.0f} MiB, {part} has room for {free / 2**20:.0f}")
            records = tuple(_copy(source, part, number, progress) for number in range(SHARDS))
            shutil.copyfile(source / SETTINGS, part / SETTINGS)
            _write_report(part, created, records)
            for path in (*part.iterdir(), part):
                fsync(path)
            if target.exists():
                target.rmdir()
            os.replace(part, target)
            fsync(target.parent)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:  # the last: of what SQLite quotes of a damaged file
        raise BackupFailed(f"{source} can't be copied to {target} ({error})") from error
    return Backup(records, sum(shard_file(target, number).stat().st_size for number in range(SHARDS)))


def _copy(source: Path, part: Path, number: int, progress: Callable[[int], None]) -> int:
    """One shard, checked: how many records the copy holds."""
    file = shard_file(part, number)
    done = 0

    def copied(status: int, remaining: int, total: int) -> None:
        nonlocal done
        progress((total - remaining - done) * page_size)
        done = total - remaining

    with closing(connect(shard_file(source, number))) as reader, closing(sqlite3.connect(file)) as writer:
        (page_size,) = reader.execute("PRAGMA page_size").fetchone()
        reader.execute("BEGIN")
        reader.execute(
            "SELECT 1 FROM records LIMIT 1"
        ).fetchone()  # from here on it reads as of now, whatever is written
        reader.backup(writer, pages=_PAGES, progress=copied, sleep=0.0)
        reader.execute("ROLLBACK")
    with closing(connect(file)) as copy:
        found = [line for (line,) in copy.execute("PRAGMA integrity_check(10)")]
        (schema,) = copy.execute("PRAGMA user_version").fetchone()
        if found != ["ok"] or schema != SCHEMA:
            raise BackupFailed(f"{shard_file(source, number)} is damaged ({'; '.join(found)}); the copy was given up")
        records = int(copy.execute("SELECT count(*) FROM records").fetchone()[0])
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    lock_file(file).touch()
    return records


def _write_report(part: Path, created: str, records: tuple[int, ...]) -> None:
    files = [shard_file(part, number) for number in range(SHARDS)]
    shards = [
        {"file": file.name, "records": count, "sha256": _digest(file)}
        for file, count in zip(files, records, strict=True)
    ]
    report = {"format": _FORMAT, "created": created, "records": sum(records), "shards": shards}
    (part / REPORT).write_text(json.dumps(report, indent=1) + "\n")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within the block no other backup writes there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupFailed(f"another backup is writing {folder}") from error
    finally:
        os.close(descriptor)


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
