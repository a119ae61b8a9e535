"""What a shard's file is asked, as SQL."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# A damaged row may hold text, a number or nothing where bytes were: as bytes it is compared, read, and then set aside.
_NONCE, _BLOB = (f"ifnull(CAST({column} AS BLOB), x'')" for column in ("nonce", "blob"))
LOAD = f"SELECT {_NONCE}, {_BLOB} FROM records WHERE key=?"
_LOAD_MANY = f"SELECT key, {_NONCE}, {_BLOB} FROM records WHERE key IN ({{}})"
UPDATE = f"UPDATE records SET nonce=?, blob=? WHERE key=? AND {_NONCE} IN (?, ?)"
INSERT = (
    "INSERT INTO records (key, nonce, blob) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET blob=excluded.blob WHERE nonce=excluded.nonce"
)
# Many at once, each decided on its own: a row (key, new + old nonce, where its blob is in the last value) that
# meets a record replaces it, if that has the old nonce or the new one. One that meets none is no row to insert.
_FITS = f"{_NONCE}=substr(excluded.nonce, 9) OR {_NONCE}=substr(excluded.nonce, 1, 8)"
_KNOWN = "EXISTS (SELECT 1 FROM records WHERE key=column1)"
_PIECE = "substr(?{last}, excluded.blob >> 24, excluded.blob & 16777215)"
_MANY = (
    "INSERT INTO records (key, nonce, blob) SELECT column1, column2, column3 FROM (VALUES {rows}) WHERE {known} "
    "ON CONFLICT (key) DO UPDATE SET nonce=substr(excluded.nonce, 1, 8), blob={blob}"
)
_SWAP_MANY = f"{_MANY} WHERE {_FITS}"
# The same, all or none: where one does not fit, its blob has no value, and SQLite gives the statement up (abs of the
# least integer is documented to). A statement on its own needs nothing by which it could be taken back in part.
_NOTHING = "abs(-9223372036854775807 - ({positive} > 0))"
NOT_ALL = "integer overflow"  # what SQLite says then


DELETE = "DELETE FROM records WHERE key=?"
DELETE_IF = f"DELETE FROM records WHERE key=? AND {_NONCE}=?"
ROWS = f"SELECT rowid, CAST(key AS BLOB), {_NONCE}, {_BLOB} FROM records WHERE rowid>? ORDER BY rowid LIMIT ?"
KEYS = "SELECT key FROM records WHERE key>? AND key<? ORDER BY key LIMIT ?"
COUNT = "SELECT count(*) FROM records WHERE key>? AND key<?"


@lru_cache(maxsize=1024)
def load_many(keys: int) -> str:
    """The records under so many keys: key, nonce, blob."""
    return _LOAD_MANY.format(",".join("?" * keys))


@lru_cache(maxsize=1024)
def swap_many(records: int) -> str:
    """Replaces those of so many records that fit; three values for each, and one with all blobs, one behind another."""
    return _many(_SWAP_MANY, records, _KNOWN, _PIECE)


@lru_cache(maxsize=1024)
def swap_all(records: int) -> str:
    """Replaces so many records, or none and NOT_ALL is said. Values as for `swap_many`."""
    known = f"CASE WHEN {_KNOWN} THEN 1 ELSE {_NOTHING.format(positive='column3')} END"
    blob = f"CASE WHEN {_FITS} THEN {_PIECE} ELSE {_NOTHING.format(positive='excluded.blob')} END"
    return _many(_MANY, records, known, blob)


def _many(statement: str, records: int, known: str, blob: str) -> str:
    rows = ",".join(["(?, ?, ?)"] * records)
    return statement.format(rows=rows, known=known, blob=blob.format(last=3 * records + 1))


def saving(path: str, old: bytes | None, new: bytes, blob: bytes | memoryview) -> tuple[str, tuple[Any, ...]]:
    """The statement of a save, which changes one row if it wins, and its values."""
    if old is None:
        return INSERT, (path, new, blob)
    return UPDATE, (new, blob, path, old, new)
