"""Series read from a user's CSV or Parquet file, as a job describes it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.job import FeatureColumn, Job, Source

Floats = NDArray[np.float32]
INTERVAL_TOLERANCE = 0.1  # how far a series' usual interval may be from the job's, as a share


class SourceInvalid(ValueError):
    """A data file that does not hold what the job says; the message names the file and the column."""

    def __init__(self, source: Source, problem: str) -> None:
        super().__init__(f"{source.file.name}: {problem}")


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
    """Every series of the job's file, in `only`'s order or that of first appearance.

    Raises SourceInvalid if the file cannot be read, a column or series is missing, a value is not a finite number or
    outside its feature's limits, a row names no series, or times do not rise or not as `interval_s` says.
    """
    source = job.source
    table = _read(source)
    needed = [source.time, *([source.series] if source.series else []), *_columns(job)]
    if absent := [column for column in needed if column not in table.columns]:
        raise SourceInvalid(source, f"no column {', '.join(map(repr, absent))}; it has {', '.join(map(str, table))}")
    if source.series is None:
        return [_series(job, job.name, table)]
    if table.empty:
        raise SourceInvalid(source, "has no rows")
    if (nameless := int(table[source.series].isna().sum())) > 0:
        raise SourceInvalid(source, f"{nameless} rows have no series in column {source.series!r}")
    groups = {str(key): rows for key, rows in table.groupby(source.series, sort=False)}
    wanted = list(groups) if source.only is None else list(source.only)
    if unknown := [key for key in wanted if key not in groups]:
        raise SourceInvalid(source, f"no series {unknown} in column {source.series!r}; it has {sorted(groups)}")
    return [_series(job, key, groups[key]) for key in wanted]


def _read(source: Source) -> pd.DataFrame:
    kind = source.format or ("parquet" if source.file.suffix in (".parquet", ".pq") else "csv")
    try:
        return pd.read_parquet(source.file) if kind == "parquet" else pd.read_csv(source.file)
    except OSError as exc:
        raise SourceInvalid(source, f"cannot be read: {exc.strerror or exc}") from exc
    except (EOFError, zlib.error) as exc:
        raise SourceInvalid(source, f"is damaged or cut off: {exc}") from exc
    except ValueError as exc:  # pandas' and pyarrow's parser errors are ValueErrors
        raise SourceInvalid(source, f"is not {kind}: {exc}") from exc


def _columns(job: Job) -> list[str]:
    """The file's columns that the features are made of."""
    pairs = [feature.parkinson or (feature.column or feature.name,) for feature in job.features]
    return [column for pair in pairs for column in pair]


def _series(job: Job, key: str, rows: pd.DataFrame) -> Series:
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
    for column, feature in enumerate(job.features):
        _refuse_outside(source, key, feature, values[:, column])
    if len(times) == 0:
        raise SourceInvalid(source, f"series {key!r} has no rows")
    if (late := np.diff(times) <= 0).any():
        at = int(np.argmax(late)) + 1
        raise SourceInvalid(source, f"series {key!r}: times must rise, but row {at + 1} is not after row {at}")
    if job.interval_s is not None and len(times) > 1:
        usual = float(np.median(np.diff(times)))
        if abs(usual / job.interval_s - 1) > INTERVAL_TOLERANCE:
            raise SourceInvalid(
                source, f"series {key!r} is usually observed every {usual:g} s, but interval_s is {job.interval_s:g}"
            )
    return Series(key, times, values)


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
