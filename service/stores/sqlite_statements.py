"""What a shard's file is asked, as SQL."""

from __future__ import annotations

from typing import Any

Saving = tuple[str, bytes | None, bytes, bytes]  # path, old, new, blob

# A damaged row may hold text, a number or nothing where bytes were: as bytes it is compared, read, and then set aside.
_NONCE, _BLOB = (f"ifnull(CAST({column} AS BLOB), x'')" for column in ("nonce", "blob"))
LOAD = f"SELECT {_NONCE}, {_BLOB} FROM records WHERE key=?"
LOAD_MANY = f"SELECT key, {_NONCE}, {_BLOB} FROM records WHERE key IN ({{}})"
UPDATE = f"UPDATE records SET nonce=?, blob=? WHERE key=? AND {_NONCE} IN (?, ?)"
INSERT = (
    "INSERT INTO records (key, nonce, blob) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET blob=excluded.blob WHERE nonce=excluded.nonce"
)
DELETE = "DELETE FROM records WHERE key=?"
DELETE_IF = f"DELETE FROM records WHERE key=? AND {_NONCE}=?"
ROWS = f"SELECT rowid, CAST(key AS BLOB), {_NONCE}, {_BLOB} FROM records WHERE rowid>? ORDER BY rowid LIMIT ?"
KEYS = "SELECT key FROM records WHERE key>? AND key<? ORDER BY key LIMIT ?"
COUNT = "SELECT count(*) FROM records WHERE key>? AND key<?"


def saving(path: str, old: bytes | None, new: bytes, blob: bytes) -> tuple[str, tuple[Any, ...]]:
    """The statement of a save, which changes one row if it wins, and its values."""
    if old is None:
        return INSERT, (path, new, blob)
    return UPDATE, (new, blob, path, old, new)
