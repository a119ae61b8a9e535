"""Series as a job describes them: read from their source, converted and checked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.batch import Batch, SourceInvalid
from training.files import read_files
from training.job import FeatureColumn, Job
from training.logged import read_log
from training.source_tables import Source
from training.sql import read_query

Floats = NDArray[np.float32]
INTERVAL_TOLERANCE = 0.1  # how far a series' usual interval may be from the job's, as a share


@dataclass(frozen=True, slots=True)
class Series:
    """One series, oldest observation first; observations follow each other whatever the time between them.

    ``times`` (n,) float64, epoch seconds, rising. ``values`` (n, F) float32, raw units, features in the job's order.
    """

    id: str
    times: NDArray[np.float64]
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int) -> Series:
        """Observations start..stop - 1 of this series."""
        return Series(self.id, self.times[start:stop], self.values[start:stop])


def load_series(job: Job) -> list[Series]:
    """Every series of the job's source, in `only`'s order or that of first appearance.

    Raises SourceInvalid if the source cannot be read, a column or series is missing, a value is not a finite number or
    outside its feature's limits, a row names no series, or times do not rise (in a file; elsewhere rows are put in
    order) or not as `interval_s` says. Observations follow each other whatever the time between them: a step that is
    missing is not made up.
    """
    rows = rows_of(job, read(job, None, None).table)
    return series_of(job, rows if job.source.path is not None else in_order(rows))


def read(job: Job, mark: Mapping[str, Any] | None, newest: float | None) -> Batch:
    """What the job's source holds beyond `mark`, a former batch's, where the newest row known is of `newest`."""
    source = job.source
    if source.sql is not None:
        return read_query(source, source.sql, mark, newest)
    if source.observations is not None:
        return read_log(job, source.observations, mark)
    return read_files(source, mark)


def rows_of(job: Job, table: pd.DataFrame | None) -> pd.DataFrame:
    """The table's whole rows in its own order: ``series`` (text), ``time`` (float64, epoch seconds), ``x0``, ``x1``, …
    (float32, the job's features). A log's also have ``clock``: the time is only when the service saw them.
    """
    source = job.source
    if table is None:
        return _empty(job)
    if source.observations is not None:
        return table
    needed = [source.time, *([source.series] if source.series else []), *_columns(job)]
    if absent := [column for column in needed if column not in table.columns]:
        raise SourceInvalid(source, f"no column {', '.join(map(repr, absent))}; it has {', '.join(map(str, table))}")
    if source.series is None:
        return _rows(job, job.name, table)
    if (nameless := int(table[source.series].isna().sum())) > 0:
        raise SourceInvalid(source, f"{nameless} rows have no series in column {source.series!r}")
    groups = [_rows(job, str(key), rows) for key, rows in table.groupby(source.series, sort=False)]
    return pd.concat(groups, ignore_index=True) if groups else _empty(job)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """One series after another as they first appear, each by time; of rows of the same series and time the last one."""
    order = np.lexsort((rows["time"].to_numpy(np.float64), pd.factorize(rows["series"])[0]))  # stable
    return rows.iloc[order].drop_duplicates(["series", "time"], keep="last")


def series_of(job: Job, rows: pd.DataFrame) -> list[Series]:
    """The job's series out of rows; each is checked. SourceInvalid as `load_series` says."""
    source = job.source
    if source.observations is None and source.series is None:
        return [_checked(job, job.name, rows)]
    if rows.empty:
        raise SourceInvalid(source, "has no rows")
    groups = {str(key): group for key, group in rows.groupby("series", sort=False)}
    if source.observations is not None:  # one client that is new or keeps no time must not stop the others' training
        least = source.observations.shortest
        groups = {key: each for key, each in groups.items() if len(each) >= least and _off_interval(job, each) is None}
        if not groups:
            on = "" if job.interval_s is None else f" about {job.interval_s:g} s apart"
            raise SourceInvalid(source, f"no client of {job.name} has {least} observations{on} (observations.shortest)")
    wanted = list(groups) if source.only is None else list(source.only)
    if unknown := [key for key in wanted if key not in groups]:
        where = "" if source.series is None else f" in column {source.series!r}"
        raise SourceInvalid(source, f"no series {unknown}{where}; it has {sorted(groups)}")
    return [_checked(job, key, groups[key]) for key in wanted]


def _empty(job: Job) -> pd.DataFrame:
    none = np.empty(0, np.float32)
    features = {f"x{at}": none for at in range(len(job.features))}
    return pd.DataFrame({"series": np.empty(0, object), "time": np.empty(0), **features})


def _columns(job: Job) -> list[str]:
    """The source's columns that the features are made of."""
    pairs = [feature.parkinson or (feature.column or feature.name,) for feature in job.features]
    return [column for pair in pairs for column in pair]


def _rows(job: Job, key: str, rows: pd.DataFrame) -> pd.DataFrame:
    source = job.source
    times = _times(source, rows[source.time])
    values = np.stack([_feature(source, feature, rows) for feature in job.features], axis=1)
    whole = np.isfinite(values).all(axis=1)
    if not whole.all():
        if source.missing == "refuse":
            at = int(np.argmin(whole))
            names = ", ".join(
                feature.name for feature, fine in zip(job.features, np.isfinite(values[at]), strict=True) if not fine
            )
            raise SourceInvalid(
                source,
                f"series {key!r} has {int((~whole).sum())} rows without a finite value, the first at "
                f"{rows[source.time].iloc[at]} for {names}; missing = 'drop' leaves them out",
            )
        times, values = times[whole], values[whole]
    features = {f"x{at}": values[:, at] for at in range(values.shape[1])}
    return pd.DataFrame({"series": np.full(len(times), key, object), "time": times, **features})


def _checked(job: Job, key: str, rows: pd.DataFrame) -> Series:
    source, times = job.source, rows["time"].to_numpy(np.float64)
    values = rows[[f"x{at}" for at in range(len(job.features))]].to_numpy(np.float32)
    for column, feature in enumerate(job.features):
        _refuse_outside(source, key, feature, values[:, column])
    if len(times) == 0:
        raise SourceInvalid(source, f"series {key!r} has no rows")
    if (late := np.diff(times) <= 0).any():
        at = int(np.argmax(late)) + 1
        raise SourceInvalid(source, f"series {key!r}: times must rise, but row {at + 1} is not after row {at}")
    if (usual := _off_interval(job, rows)) is not None:
        raise SourceInvalid(
            source, f"series {key!r} is usually observed every {usual:g} s, but interval_s is {job.interval_s:g}"
        )
    return Series(key, times, values)


def _off_interval(job: Job, rows: pd.DataFrame) -> float | None:
    """How often a series is usually observed, if that is not every `interval_s`."""
    apart = spans(rows)
    if job.interval_s is None or not len(apart):
        return None
    usual = float(np.median(apart))
    return usual if abs(usual / job.interval_s - 1) > INTERVAL_TOLERANCE else None


def newest_of(series: Sequence[Series]) -> float:
    """The time of the newest observation. Those yet to come count only where all are: a clock that was ahead, or
    milliseconds taken for seconds, must not make all others old."""
    return newest(float(each.times[-1]) for each in series)


def newest(times: Iterable[float]) -> float:
    """The latest of some times, as `newest_of` says."""
    found, now = list(times), time.time()
    return max([each for each in found if each <= now] or found)


def spans(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds between one observation of a series and the next; none where the service's clock stands for a time."""
    apart: NDArray[np.float64] = np.diff(rows["time"].to_numpy(np.float64))
    if "clock" not in rows:
        return apart
    own: NDArray[np.bool_] = ~rows["clock"].to_numpy(bool)
    between: NDArray[np.float64] = apart[own[1:] & own[:-1]]
    return between


def _refuse_outside(source: Source, key: str, feature: FeatureColumn, values: Floats) -> None:
    """The service refuses what lies outside a feature's physical limits, so training must not have seen it."""
    low = -np.inf if feature.minimum is None else feature.minimum
    high = np.inf if feature.maximum is None else feature.maximum
    if (outside := (values < low) | (values > high)).any():
        raise SourceInvalid(
            source,
            f"series {key!r} has {int(outside.sum())} values of {feature.name} outside {low:g} to {high:g} "
            f"{feature.unit}".rstrip()
            + f", the first is {values[np.argmax(outside)]:g}",
        )


def _times(source: Source, column: pd.Series) -> NDArray[np.float64]:
    """Epoch seconds of a column of ISO 8601 times or epoch seconds."""
    if pd.api.types.is_numeric_dtype(column):
        seconds = column.to_numpy(np.float64, na_value=np.nan)
        if not np.isfinite(seconds).all():
            raise SourceInvalid(source, f"column {source.time!r} has empty times")
        return seconds
    try:
        stamps = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as exc:
        raise SourceInvalid(source, f"column {source.time!r} is neither ISO 8601 nor epoch seconds: {exc}") from exc
    if stamps.isna().any():
        raise SourceInvalid(source, f"column {source.time!r} has empty times")
    return stamps.dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64) / 1e9


def _feature(source: Source, feature: FeatureColumn, rows: pd.DataFrame) -> Floats:
    """Raw values of one feature, NaN where the file has none."""
    if feature.parkinson is None:
        return _numbers(source, rows[feature.column or feature.name]).astype(np.float32)
    high, low = (_numbers(source, rows[column]) for column in feature.parkinson)
    if (wrong := (low <= 0) | (high < low)).any():
        at = int(np.argmax(wrong))
        raise SourceInvalid(source, f"{feature.name}: needs high >= low > 0, but {high[at]} and {low[at]} were found")
    percent: Floats = (100 * np.log(high / low) / np.sqrt(4 * np.log(2))).astype(np.float32)
    return percent


def _numbers(source: Source, column: pd.Series) -> NDArray[np.float64]:
    try:
        return pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as exc:
        raise SourceInvalid(source, f"column {column.name!r} holds something that is not a number: {exc}") from exc
