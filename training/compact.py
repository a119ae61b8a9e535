"""Journals into Parquet: what may be repeated at any moment, so that a kill neither loses nor doubles a row.

A part is replaced by one that holds what it held and more; a journal is deleted once all its rows are in parts. A run
that finds rows in a part already, because the one before was killed between the two, leaves them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from models.disk import locked
from models.journal import Damage, Logged, NotAJournal, Rows, read
from models.journals import JOURNAL, complete_journals
from training.observed import (
    KEY,
    PARQUET,
    PART_ROWS,
    day_before,
    day_of,
    features_in,
    frame_of,
    newest,
    parts,
    read_part,
    rows_in,
    with_own,
    write_part,
)
from training.refusals import TrainingError

LOCK, LOCK_WAIT_S = ".compact.lock", 600.0
BATCH_BYTES = 64 << 20  # of journals taken together
SOME = 50_000  # blocks of rows held as such
DAY_S = 86400.0
Advance = Callable[[float], None]


class NoLog(TrainingError):
    """There is no observation log in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"there is no observation log in {folder}: start the service with --log-observations, or name its "
            "--observations-dir"
        )


@dataclass(slots=True)
class Compacted:
    """What a run did. `rows` are new in Parquet; `duplicates` were there already or came again. `torn` places in
    journals hold `torn_bytes` that are no rows; `damaged` journals are kept aside under that ending.
    """

    journals: int = 0
    rows: int = 0
    duplicates: int = 0
    torn: int = 0
    torn_bytes: int = 0
    undeclared: int = 0
    damaged: list[str] = field(default_factory=list)
    parts: int = 0
    models: dict[str, int] = field(default_factory=dict)
    dropped_days: list[str] = field(default_factory=list)
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compact(
    folder: Path,
    *,
    keep_days: float | None = None,
    keep_bytes: int | None = None,
    now: Callable[[], float] = time.time,
    advance: Advance = lambda share: None,
) -> Compacted:
    """Bring every complete journal of the log in `folder` into Parquet, then drop the oldest days beyond the bounds.

    One run at a time: another one waits for up to ten minutes, then RepositoryBusy. NoLog if there is no such folder.
    """
    if not folder.is_dir():
        raise NoLog(folder)
    done = Compacted()
    with locked(folder / LOCK, LOCK_WAIT_S):
        for left in (folder / PARQUET).rglob(".part-*.new"):  # of a killed run
            left.unlink()
        journals = complete_journals(folder / JOURNAL)
        sizes = [path.stat().st_size for path in journals]
        total, before = sum(sizes) or 1, 0
        for batch in _batches(journals, sizes):
            _bring(folder, batch, done)
            before += sum(path.stat().st_size for path in batch)
            for path in batch:
                path.unlink()
            done.journals += len(batch)
            advance(before / total)
        _retain(folder / PARQUET, done, keep_days, keep_bytes, now())
        done.bytes = sum(part.stat().st_size for part in parts(folder / PARQUET))
    return done


def _batches(journals: Sequence[Path], sizes: Sequence[int]) -> list[list[Path]]:
    batches: list[list[Path]] = []
    room = 0
    for path, size in zip(journals, sizes, strict=True):
        if not batches or size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(path)
        room -= size
    return batches


def _bring(folder: Path, journals: list[Path], done: Compacted) -> None:
    """All rows of these journals into parts; those that are no journals are set aside, and taken off the list."""
    found: dict[Logged, list[pd.DataFrame]] = {}
    damage = Damage()
    for path in list(journals):
        try:
            blocks = read(path.read_bytes(), damage)
            while some := list(islice(blocks, SOME)):  # as tables they take a tenth of the room
                for logged, these in _by_model(some).items():
                    found.setdefault(logged, []).append(frame_of(logged, these))
        except NotAJournal:
            os.rename(path, path.with_suffix(".damaged"))
            done.damaged.append(path.name)
            journals.remove(path)
    done.torn += damage.places
    done.torn_bytes += damage.bytes
    done.undeclared += damage.undeclared
    for logged, tables in found.items():
        table = pd.concat(tables, ignore_index=True)
        days = table["absorbed"].floordiv(DAY_S)
        for _, of_day in table.groupby(days, sort=True):
            day = day_of(float(of_day["absorbed"].iloc[0]))
            _bring_day(folder / PARQUET / logged.model, day, logged, of_day, done)


def _by_model(blocks: Sequence[Rows]) -> dict[Logged, list[Rows]]:
    found: dict[Logged, list[Rows]] = {}
    for rows in blocks:
        found.setdefault(rows.logged, []).append(rows)
    return found


def _bring_day(model: Path, day: str, logged: Logged, rows: pd.DataFrame, done: Compacted) -> None:
    fresh = newest(rows)
    known = parts(model / day)
    for part in [*parts(model / day_before(day)), *known]:  # a step that was taken back may come again after midnight
        if features_in(part) == logged:
            fresh = _update(part, fresh)
    done.duplicates += len(rows) - len(fresh)
    done.rows += len(fresh)
    done.models[logged.model] = done.models.get(logged.model, 0) + len(fresh)
    if fresh.empty:
        return
    last = int(known[-1].stem.removeprefix("part-")) if known else 0  # a day that was dropped in part has gaps
    number, whole = last + 1, fresh
    if known and rows_in(known[-1]) < PART_ROWS and features_in(known[-1]) == logged:
        number, whole = last, pd.concat([with_own(read_part(known[-1])), fresh])
    for begin in range(0, len(whole), PART_ROWS):
        write_part(model / day / f"part-{number:05d}.parquet", logged, whole.iloc[begin : begin + PART_ROWS])
        done.parts += 1
        number += 1


def _update(part: Path, fresh: pd.DataFrame) -> pd.DataFrame:
    """What of `fresh` is not in `part`. Rows that are, and were absorbed later than there, take the place of those."""
    keys = ["tenant", "client", "begun", "step", "time", "clock"]
    there = with_own(read_part(part, [*keys, "absorbed"]))
    again = fresh.merge(there[[*KEY, "absorbed"]], on=KEY, suffixes=("", "_there"))
    if again.empty:
        return fresh
    later = again[again["absorbed"] > again["absorbed_there"]].drop(columns="absorbed_there")
    if len(later):
        write_part(part, features_in(part), newest(pd.concat([with_own(read_part(part)), later])))
    known = pd.MultiIndex.from_frame(again[KEY])
    return fresh[~pd.MultiIndex.from_frame(fresh[KEY]).isin(known)]


def _retain(parquet: Path, done: Compacted, keep_days: float | None, keep_bytes: int | None, now: float) -> None:
    """Drop whole days, the oldest first; of the newest day nothing goes for its size."""
    days: dict[str, list[Path]] = {}
    for folder in sorted(parquet.glob("*/????-??-??")):
        days.setdefault(folder.name, []).append(folder)
    sizes = {day: sum(part.stat().st_size for each in folders for part in parts(each)) for day, folders in days.items()}
    kept, newest_day = sum(sizes.values()), max(days, default="")
    for day in sorted(days):
        old = keep_days is not None and day < day_of(max(0.0, now - keep_days * DAY_S))
        large = keep_bytes is not None and kept > keep_bytes and day != newest_day
        if old or large:
            for each in days[day]:
                _drop(each)
            kept -= sizes[day]
            done.dropped_days.append(day)


def _drop(folder: Path) -> None:
    for part in parts(folder):
        part.unlink()
    with suppress(OSError):  # something else lies there
        folder.rmdir()
