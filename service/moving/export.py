"""A store into a file, so that a run that was stopped goes on where it was.

FILE.part grows, FILE.part.json says how far it is good and from where to go on; FILE appears when all is in it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from service.core.errors import RecurveError
from service.core.ports import Scans
from service.moving.dump import Writer
from service.moving.transfer import Choice, slices

EVERY_BYTES = 2 * 2**20  # between two notes of how far it is


class ExportRefused(RecurveError):
    """The file can't be written to; the detail says what to do."""

    code = "export_refused"


@dataclass(frozen=True, slots=True)
class _Note:
    source: str
    tenant: str | None
    model: str | None
    cursor: str
    size: int
    records: int


def export_to_stream(source: Scans, choice: Choice, file: BinaryIO, created: str) -> Iterator[int]:
    """Write the records to `file`; yields how many were looked at with each slice."""
    writer = Writer(file)
    writer.begin(created)
    for entries, _ in slices(source):
        for entry in entries:
            if choice.takes(entry.key):
                writer.add(entry)
        yield len(entries)
    writer.end()
    file.flush()


def export_to_file(
    source: Scans, name: str, choice: Choice, target: Path, created: str, *, every_bytes: int = EVERY_BYTES
) -> Iterator[int]:
    """As `export_to_stream`; goes on with what a stopped run of the same export left beside `target`.

    A record written anew while the export runs may be in it twice; importing takes the newer. ExportRefused if what
    is left there is of another export (`name` tells stores apart).
    """
    part, note_file = (target.with_name(target.name + end) for end in (".part", ".part.json"))
    descriptor, made = _open(part)
    with os.fdopen(descriptor, "r+b") as file:
        _lock(file, part)
        if made:  # what a note tells of has become a file, or was taken away
            note_file.unlink(missing_ok=True)
        note = _left(note_file, name, choice, part)
        writer, after = Writer(file), None
        if note is None:
            file.truncate()
            writer.begin(created)
        else:
            if not writer.resume(file, note.size, note.records):
                raise ExportRefused(f"{part} has lost its end; delete {note_file} to begin anew")
            file.seek(note.size)
            file.truncate()
            after = note.cursor
            yield note.records
        noted = writer.size
        for entries, cursor in slices(source, after):
            for entry in entries:
                if choice.takes(entry.key):
                    writer.add(entry)
            if cursor is not None and (writer.size - noted >= every_bytes):
                _sync(file)
                _write_note(note_file, _Note(name, choice.tenant, choice.model, cursor, writer.size, writer.records))
                noted = writer.size
            yield len(entries)
        writer.end()
        _sync(file)
        os.replace(part, target)  # under the lock: whoever gets it next finds out
    note_file.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _open(part: Path) -> tuple[int, bool]:
    """A descriptor of `part` as it is, and whether it was made just now; it is not cut before it is locked."""
    try:
        return os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(part, os.O_RDWR | os.O_CREAT, 0o666), False


def _lock(file: BinaryIO, part: Path) -> None:
    """ExportRefused if another run writes `part`, or has made it the finished file since we opened it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        still_there = os.path.samestat(os.fstat(file.fileno()), part.stat())
    except (BlockingIOError, FileNotFoundError):
        still_there = False
    if not still_there:
        raise ExportRefused(f"another export is writing {part}; let it end, or name another file")


def _left(note_file: Path, name: str, choice: Choice, part: Path) -> _Note | None:
    """How far a stopped run came, None if there was none or it did not come far enough to tell."""
    if not note_file.exists():
        return None
    try:
        note = _Note(**json.loads(note_file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ExportRefused(f"{note_file} is damaged; delete it to begin anew") from error
    if (note.source, note.tenant, note.model) != (name, choice.tenant, choice.model):
        raise ExportRefused(f"{part} is of another export, from {note.source}; finish that, or delete {note_file}")
    return note


def _write_note(file: Path, note: _Note) -> None:
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps(asdict(note)))
    os.replace(fresh, file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
