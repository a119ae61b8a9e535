"""A file of records: one JSON object a line, each with its checksum, the last line with that of the whole file.

    {"created": …, "format": "recurve-records/1"}
    {"client": …, "model": …, "nonce": hex, "record": base64, "sha256": hex, "tenant": …}
    {"records": n, "sha256": hex}

A line's `sha256` is that of its other members as JSON, keys sorted, no spaces, UTF-8; the last line's is that of all
bytes before it. A file without the last line was not finished.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, BinaryIO

from service.core.errors import RecurveError
from service.core.ports import Entry
from service.core.types import ClientKey

FORMAT = "recurve-records/1"
LINE_MAX = 256 * 2**20  # bytes; a longer one is no record of ours
NONCE = 8  # bytes
_NAMES = ("tenant", "model", "client")


class DumpDamaged(RecurveError):
    """The file is not as it was written; the detail says where."""

    code = "dump_damaged"


class Writer:
    """Appends records to a file. `records` and `size` (bytes) tell what is in it."""

    def __init__(self, file: BinaryIO) -> None:
        self.records = 0
        self.size = 0
        self._file = file
        self._whole = sha256()

    def begin(self, created: str) -> None:
        """The first line."""
        self._line({"format": FORMAT, "created": created})

    def resume(self, before: BinaryIO, size: int, records: int) -> bool:
        """Go on after the first `size` bytes of `before`, holding `records`; False if it has not so many."""
        while self.size < size:
            piece = before.read(min(2**20, size - self.size))
            if not piece:
                return False
            self._whole.update(piece)
            self.size += len(piece)
        self.records = records
        return True

    def add(self, entry: Entry) -> None:
        """One record."""
        content = dict(zip(_NAMES, entry.key, strict=True))
        content |= {"nonce": entry.nonce.hex(), "record": b64encode(entry.blob).decode()}
        self._line(content | {"sha256": _checksum(content)})
        self.records += 1

    def end(self) -> None:
        """The last line: what is before it is the whole."""
        self._line({"records": self.records, "sha256": self._whole.hexdigest()})

    def _line(self, content: dict[str, Any]) -> None:
        line = _json(content) + b"\n"
        self._whole.update(line)
        self.size += len(line)
        self._file.write(line)


def read(file: BinaryIO) -> Iterator[tuple[Entry, int]]:
    """Each record of a file with the bytes its line takes. DumpDamaged at the first line that is not as written.

    The checksum of the whole is known only at its end: records given before may be of a file that was cut.
    """
    whole, records = sha256(), 0
    for number, line in enumerate(_lines(file), 1):
        content = _object(line, number)
        if number == 1:
            if content.get("format") != FORMAT:
                raise DumpDamaged(f"line 1 does not say {FORMAT!r}: this is no export, or another release's")
        elif "records" in content:
            if content != {"records": records, "sha256": whole.hexdigest()}:
                raise DumpDamaged(f"line {number}: the checksum of the whole file does not hold; export again")
            if file.read(1):
                raise DumpDamaged(f"something follows line {number}, which is the last; export again")
            return
        else:
            yield _entry(content, number), len(line)
            records += 1
        whole.update(line)
    raise DumpDamaged(f"the file ends after {records} records without its last line: it was cut; export again")


def check(file: BinaryIO) -> Iterator[int]:
    """Reads a whole file without a word if it is as it was written; yields how many bytes each record takes."""
    for _, size in read(file):
        yield size


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_MAX):
        yield line


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not line.endswith(b"\n"):
        raise DumpDamaged(f"line {number} is damaged or cut; export again")
    return content


def _entry(content: dict[str, Any], number: int) -> Entry:
    said = content.pop("sha256", None)
    if said != _checksum(content):
        raise DumpDamaged(f"line {number}: the record's checksum does not hold; export again")
    try:
        key = ClientKey(*(str(content[name]) for name in _NAMES))
        entry = Entry(key, bytes.fromhex(content["nonce"]), b64decode(content["record"], validate=True))
    except (KeyError, TypeError, ValueError) as error:
        raise DumpDamaged(f"line {number} is no record; export again") from error
    if len(entry.nonce) != NONCE:
        raise DumpDamaged(f"line {number} is no record; export again")
    return entry


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _checksum(content: dict[str, Any]) -> str:
    try:
        return sha256(_json(content)).hexdigest()
    except UnicodeEncodeError:  # half a surrogate pair, which no file of ours holds
        return ""
