"""What there is to train on now, of which only what is new since the last time was read.

What was read is kept in one Parquet file, `rows.parquet` in the cache's folder, with a mark of how far its source had
been read: both are replaced together, so that a kill at any moment leaves those of the last run or of this one.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.disk import replace_durably
from training.job import Job
from training.logged import log_folder
from training.sources import Series, in_order, read, rows_of, series_of, spans
from training.sql import url_of

FORMAT = 1
ROWS = "rows.parquet"
_META = b"recurve"
_KEY = ["series", "time"]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Every series of a job and what was met on the way.

    `new_rows` were not there the last time, `late_rows` of them are older than the newest row their series had then.
    `duplicates` are rows of a series and time that came again with other values, or several times at once: the newest
    counts. `gaps` are steps of `interval_s` in which nothing was observed; 0 for a job without an interval. They are
    not filled: observations follow each other whatever the time between them, as `load_series` has it. `left_out` are
    clients of a log that have too few observations, or not every `interval_s`.
    """

    series: list[Series]
    new_rows: int
    late_rows: int = 0
    duplicates: int = 0
    gaps: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the last run left."""

    rows: pd.DataFrame
    mark: dict[str, Any] | None


def gather(job: Job, cache: Path | None) -> Gathered:
    """The job's series; with `cache`, a folder, only what is new since the last run is read from its source.

    A file is read on from where it ended, of a folder of Parquet or a log the new files, of a query the rows that are
    not older than the newest known less its `overlap_s`; everything where what was read has changed or the job reads
    something else now. Late rows are put in order, of rows of the same series and time the newest counts. Raises
    SourceInvalid as `load_series` does; the cache is then as it was.
    """
    reads = _reads(job)
    kept = _Kept(rows_of(job, None), None) if cache is None else _load(job, cache, reads)
    past = kept.rows["time"][kept.rows["time"] <= time.time()]  # one row of a clock that is ahead must not hide others
    newest = float(past.max()) if len(past) else None
    batch = read(job, kept.mark, newest)
    fresh = rows_of(job, batch.table)
    rows, found = _merged(kept.rows, fresh, whole=batch.whole)
    series = series_of(job, rows)
    gaps, ids = 0, {each.id for each in series}
    left_out = 0
    if job.source.observations is not None and job.source.only is None:
        left_out = rows["series"].nunique() - len(ids)
    if job.interval_s is not None:
        gaps = sum(_missing(group, job.interval_s) for key, group in rows.groupby("series") if str(key) in ids)
    if cache is not None and (len(fresh) or batch.whole or batch.mark != kept.mark):
        _keep(cache, reads, rows, batch.mark)
    return Gathered(series, **found, gaps=gaps, left_out=left_out)


def _merged(old: pd.DataFrame, fresh: pd.DataFrame, *, whole: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """`old` and `fresh` rows together, or `fresh` alone if it is the `whole`; and how many of what kind it has."""
    once = in_order(fresh)
    values = [column for column in once.columns if column[0] == "x"]
    near = old[old["time"] >= once["time"].min()] if len(once) else old.iloc[:0]  # all that could be the same
    known = pd.MultiIndex.from_frame(once[_KEY]).isin(pd.MultiIndex.from_frame(near[_KEY]))
    latest = once["series"].map(old.groupby("series")["time"].max())
    same = len(once.merge(near, on=[*_KEY, *values], how="inner")) if known.any() else 0
    found = {
        "new_rows": int((~known).sum()),
        "late_rows": int((~known & (once["time"] < latest).to_numpy()).sum()),
        "duplicates": len(fresh) - len(once) + int(known.sum()) - same,
    }
    if whole or old.empty:
        return once, found
    return (in_order(pd.concat([old, once], ignore_index=True)) if len(once) else old), found


def _missing(rows: pd.DataFrame, interval_s: float) -> int:
    """Steps of the interval between two observations in which there was none."""
    return int(np.maximum(np.rint(spans(rows) / interval_s) - 1, 0).sum())


def _reads(job: Job) -> str:
    """A digest of what a job reads: rows that were kept for another are none of this one's."""
    source = job.source
    what = {
        "format": FORMAT,
        "model": job.name,
        "source": source.model_dump(mode="json", exclude={"credit", "only"}),
        "file": None if source.path is None else str(source.file.resolve()),
        "log": None if source.observations is None else str(log_folder(source.observations).resolve()),
        "url": None if source.sql is None else url_of(source, source.sql),
        "features": [[each.name, each.column, each.parkinson] for each in job.features],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _load(job: Job, cache: Path, reads: str) -> _Kept:
    """What was kept for this job; nothing if it was for another, or does not read."""
    try:
        table = pq.ParquetFile(cache / ROWS).read()
        said = json.loads(table.schema.metadata[_META])
        if said["reads"] == reads:
            return _Kept(table.to_pandas(), said["mark"])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        pass  # all is read again, which mends it
    return _Kept(rows_of(job, None), None)


def _keep(cache: Path, reads: str, rows: pd.DataFrame, mark: dict[str, Any]) -> None:
    said = {"reads": reads, "mark": mark}
    table = pa.Table.from_pandas(rows.drop(columns="absorbed", errors="ignore"), preserve_index=False)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({_META: json.dumps(said)}), sink, compression="zstd")
    cache.mkdir(parents=True, exist_ok=True)
    replace_durably(cache / ROWS, sink.getvalue().to_pybytes())
