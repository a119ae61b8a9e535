"""The compacted observation log: Parquet parts by model and day, each replaced whole.

    <folder>/journal/…                                   the workers' journals (`models.journals`)
    <folder>/parquet/<model>/<YYYY-MM-DD>/part-00001.parquet

The day (UTC) is the one on which an observation was absorbed, whatever its own time. A part's columns are COLUMNS and
then one float32 column for each feature, in manifest order. `time` is the observation's own, in epoch seconds, or with
`clock` the service's when it was absorbed; `begun` tells the lives of a client apart (`models.journal.Rows`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.disk import fsync, replace_durably
from models.journal import Logged, Rows

PARQUET = "parquet"
COLUMNS = {
    "tenant": pa.string(),
    "client": pa.string(),
    "step": pa.int64(),
    "time": pa.float64(),
    "clock": pa.bool_(),
    "absorbed": pa.float64(),
    "begun": pa.float64(),
}
KEY = ["tenant", "client", "begun", "step", "own"]  # what is one row however often it was written
PART_ROWS = 2_000_000  # a fuller part is not added to
APART_S = 1e-6  # between observations that came together without times
_META = b"recurve"


def columns_of(features: Iterable[str]) -> list[str]:
    """The columns that hold the features: called as they are, with underscores behind a name of ours."""
    found: list[str] = []
    for name in features:
        while name in COLUMNS or name in found:
            name += "_"
        found.append(name)
    return found


def frame_of(logged: Logged, blocks: Iterable[Rows]) -> pd.DataFrame:
    """One row per observation, in the order of the blocks. ``own`` is the request's own time, 0 where it had none."""
    tenant: list[str] = []
    client: list[str] = []
    counts: list[int] = []
    first: list[int] = []
    absorbed: list[float] = []
    begun: list[float] = []
    clock: list[bool] = []
    times: list[float] = []
    values = bytearray()
    once: dict[str, str] = {}  # one string for each name, however often it was read
    for block in blocks:
        n = len(block)
        tenant.append(once.setdefault(block.tenant, block.tenant))
        client.append(once.setdefault(block.client, block.client))
        counts.append(n)
        first.append(block.step)
        absorbed.append(block.absorbed)
        begun.append(block.begun)
        clock.append(block.times is None)
        times.extend([block.absorbed] * n if block.times is None else block.times)
        values += block.values.tobytes()
    repeats = np.array(counts, np.int64)
    behind = np.repeat(np.cumsum(repeats), repeats) - 1 - np.arange(len(times))  # observations of the request after it
    by_clock = np.repeat(np.array(clock, bool), repeats)
    time = np.array(times, np.float64)
    table = pd.DataFrame(
        {
            "tenant": np.repeat(np.array(tenant, object), repeats),
            "client": np.repeat(np.array(client, object), repeats),
            "step": np.repeat(np.array(first, np.int64) + repeats, repeats) - 1 - behind,
            "time": np.where(by_clock, time - behind * APART_S, time),
            "clock": by_clock,
            "absorbed": np.repeat(np.array(absorbed, np.float64), repeats),
            "begun": np.repeat(np.array(begun, np.float64), repeats),
        }
    )
    numbers = np.frombuffer(bytes(values), np.float32).reshape(len(table), len(logged.features))
    for at, column in enumerate(columns_of(logged.features)):
        table[column] = numbers[:, at]
    return with_own(table)


def with_own(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the column ``own``, by which rows of one step are told apart where they bring times."""
    return table.assign(own=np.where(table["clock"], 0.0, table["time"]))


def newest(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each KEY: the one absorbed last, of those absorbed together the last."""
    ordered = table.sort_values("absorbed", kind="stable")
    return ordered.drop_duplicates(KEY, keep="last")


def day_of(absorbed: float) -> str:
    """The day (UTC) of a time, as a folder is called."""
    return datetime.fromtimestamp(absorbed, UTC).strftime("%Y-%m-%d")


def day_before(day: str) -> str:
    """The day before, called as folders are."""
    return (datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) - timedelta(days=1)).strftime("%Y-%m-%d")


def parts(folder: Path) -> list[Path]:
    """The parts of a day, or those of all days of a model, oldest first."""
    return sorted(folder.rglob("part-*.parquet"))


def features_in(part: Path) -> Logged:
    """The model that a part is of, and its features."""
    said = json.loads(pq.read_schema(part).metadata[_META])
    return Logged(said["model"], tuple(said["features"]), said["interval_s"])


def rows_in(part: Path) -> int:
    """How many rows a part has."""
    return int(pq.read_metadata(part).num_rows)


def read_part(part: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A part's rows, or some of their columns."""
    table: pd.DataFrame = pq.ParquetFile(part).read(columns=columns, use_threads=False).to_pandas(use_threads=False)
    return table


def write_part(part: Path, logged: Logged, table: pd.DataFrame) -> None:
    """Atomically and durably make `part` hold these rows, by client and step."""
    ordered = table.sort_values(["tenant", "client", "begun", "step", "time"], kind="stable")
    features = columns_of(logged.features)
    said = {"format": 1, "model": logged.model, "features": list(logged.features), "interval_s": logged.interval_s}
    schema = pa.schema(
        [*COLUMNS.items(), *((column, pa.float32()) for column in features)], metadata={_META: json.dumps(said)}
    )
    whole = pa.Table.from_pandas(ordered, schema, preserve_index=False, nthreads=1)
    sink = pa.BufferOutputStream()
    pq.write_table(whole.replace_schema_metadata(schema.metadata), sink, compression="zstd")
    _make_folder(part.parent)
    replace_durably(part, sink.getvalue().to_pybytes())


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)
