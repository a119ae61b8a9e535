"""A sqlite store after a power cut: whole, and with nothing in it that was not once written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.core.record import decode
from service.core.types import ClientKey
from service.http.context import TENANT
from service.stores.sqlite import SqliteStore
from service.stores.sqlite_folder import SHARDS, shard_file
from tests.chaos.checker import SCALE, TOLERANCE, Offline
from tests.chaos.load import MODEL, Broken, Client


def inspect(folder: Path, clients: Sequence[Client], expected: Mapping[str, NDArray[np.float32]]) -> dict[str, int]:
    """The step that is kept of each client, 0 for none; Broken if the store or a record is not whole.

    ``expected``: each client's offline pass, (T, 3, 4).
    """
    store = SqliteStore(folder)  # first: SQLite puts the files in order when they are opened
    try:
        kept = {client.name: _step(store, client, expected) for client in clients}
    finally:
        store.close()
    for number in range(SHARDS):
        with contextlib.closing(sqlite3.connect(shard_file(folder, number))) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchall()
            if found != [("ok",)]:
                raise Broken(f"{shard_file(folder, number).name}: {found[:3]}")
    return kept


def offline_of(clients: Sequence[Client], offline: Offline) -> dict[str, NDArray[np.float32]]:
    """Each client's offline pass over all it ever sent."""
    found = {}
    for client in clients:
        found[client.name] = offline(client.series(client.step + 3)[None])[0]
    return found


def _step(store: SqliteStore, client: Client, expected: Mapping[str, NDArray[np.float32]]) -> int:
    key = ClientKey(TENANT, MODEL, client.name)
    stored = store.load(key)
    if stored is None:
        return 0
    record = decode(key, stored.blob)
    rows = expected[client.name]
    if not 0 < record.step <= len(rows):
        raise Broken(f"{client.name}: step {record.step} is kept and was never sent")
    seen = client.series(record.step)[-len(record.context) :]
    y, row = record.tracks[0].y, rows[record.step - 1]
    if not np.array_equal(record.context, seen) or np.any(np.abs(y - row) > TOLERANCE * np.maximum(np.abs(row), SCALE)):
        raise Broken(f"{client.name}: the record of step {record.step} is none that was ever written")
    return record.step
