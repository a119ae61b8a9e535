"""Many saves on one shard, all in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, repeat
from operator import add, itemgetter, lshift, or_
from typing import Any

from service.core.ports import Save
from service.stores import sqlite_statements as sql

AT_ONCE = 300  # records in one statement, three values each: every SQLite takes 999


def save_together(
    connection: sqlite3.Connection, paths: Sequence[str], saves: Sequence[Save], answers: list[bool]
) -> None:
    """Saves what wins. If the commit fails, which may still have happened, `answers` holds what it would have answered.

    As a rule all of them replace a record and win: then one statement is enough.
    """
    fresh = []
    if None in map(itemgetter(1), saves):
        fresh = [place for place, save in enumerate(saves) if save.old is None]
    if fresh or not 0 < len(saves) <= AT_ONCE or not _swap_all(connection, paths, saves, answers):
        _transaction(connection, paths, saves, fresh, answers)


def _swap_all(
    connection: sqlite3.Connection, paths: Sequence[str], saves: Sequence[Save], answers: list[bool]
) -> bool:
    """Replace all records by one statement; False, and nothing is done, if one of them does not win."""
    answers.extend([True] * len(saves))
    try:
        connection.execute(sql.swap_all(len(saves)), swap_values(paths, saves))
    except sqlite3.OperationalError as error:
        if sql.NOT_ALL not in str(error):
            raise
        answers.clear()
    return bool(answers)


def _transaction(
    connection: sqlite3.Connection, paths: Sequence[str], saves: Sequence[Save], fresh: list[int], answers: list[bool]
) -> None:
    known = sorted(set(range(len(saves))).difference(fresh))
    connection.execute("BEGIN IMMEDIATE")
    try:
        answers.extend(_swapped(connection, [paths[at] for at in known], [saves[at] for at in known]))
        for at in fresh:
            saving = sql.saving(paths[at], *saves[at][1:])
            answers.insert(at, connection.execute(*saving).rowcount == 1)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _swapped(connection: sqlite3.Connection, paths: Sequence[str], saves: Sequence[Save]) -> Iterator[bool]:
    """Replace records, in a transaction: which are stored now."""
    for start in range(0, len(saves), AT_ONCE):
        some, of_them = paths[start : start + AT_ONCE], saves[start : start + AT_ONCE]
        n = len(some)
        if connection.execute(sql.swap_many(n), swap_values(some, of_them)).rowcount == n:
            yield from [True] * n
        else:
            nonces = {path: nonce for path, nonce, _ in connection.execute(sql.load_many(n), some)}
            yield from [nonces.get(path) == save[2] for path, save in zip(some, of_them, strict=True)]


def swap_values(paths: Sequence[str], saves: Sequence[Save]) -> list[Any]:
    """The values of `sql.swap_many` and `sql.swap_all`."""
    _, old, new, blobs = zip(*saves, strict=True)
    sizes = list(map(len, blobs))
    values: list[Any] = [None] * (3 * len(saves) + 1)
    values[0:-1:3] = paths
    values[1:-1:3] = map(add, new, old)
    values[2:-1:3] = map(or_, map(lshift, accumulate(sizes, initial=2), repeat(24)), sizes)
    values[-1] = b"".join((b"\0", *blobs))  # never empty: that would be NULL
    return values
