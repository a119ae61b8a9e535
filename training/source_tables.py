"""The tables of a job that say where its series are: files, a SQL query, the service's observation log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from training.tables import Table


class Query(Table):
    """A SQL query and the database it asks: `url` in SQLAlchemy's form, or in the environment variable `url_env`.

    A URL with a password is refused here: jobs are published with what they made. When only what is new is asked for,
    rows of the last `overlap_s` seconds are asked for again, as some may have come late.
    """

    query: str = Field(min_length=1)
    url: str | None = None
    url_env: str | None = Field(default=None, min_length=1)
    overlap_s: float = Field(default=86400.0, ge=0)

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("url: give either url or url_env, the environment variable that holds it")
        if self.url is not None and re.search(r"//[^/@:]*:[^@]*@|[?&]\w*(password|passwd|pwd)=", self.url):
            raise ValueError("url: holds a password; put it into an environment variable and name that in url_env")
        return self


class FromLog(Table):
    """The service's observation log, of the model called as the job: in `dir`, null for RECURVE_OBSERVATIONS_DIR or
    else var/observations. Each client is a series; those with fewer than `shortest` observations are left out, and
    those that are usually not observed every `interval_s`.
    """

    dir: str | None = None
    shortest: int = Field(default=100, ge=1)


class Source(Table):
    """Where the series are: a CSV (also .gz) or Parquet file, or a folder of Parquet files (`path`), in long form if
    it holds several series; a SQL query (`sql`); or the observation log (`observations`, also as `source =
    "observations"`).

    `time` holds ISO 8601 times (UTC unless they say otherwise) or epoch seconds. `series` names the column that tells
    the series apart (null: there is one); `only` keeps the named ones, in that order. `missing` says what happens to a
    row without one of the features: the job stops, or the row is dropped. The log has all of these by itself.
    """

    path: str | None = Field(default=None, min_length=1)
    sql: Query | None = None
    observations: FromLog | None = None
    format: Literal["csv", "parquet"] | None = None
    time: str = "time"
    series: str | None = None
    only: tuple[str, ...] | None = Field(default=None, min_length=1)
    missing: Literal["refuse", "drop"] = "refuse"
    credit: str = ""
    _folder: Path = PrivateAttr(default=Path())

    @property
    def file(self) -> Path:
        """The data file of a `path`; a relative one starts at the job file's folder."""
        return self._folder / (self.path or "")

    @property
    def kind(self) -> Literal["csv", "parquet"]:
        """What the file of a `path` is."""
        folder = self.format is None and self.file.is_dir()
        return self.format or ("parquet" if folder or self.file.suffix in (".parquet", ".pq") else "csv")

    @property
    def called(self) -> str:
        """What messages call it."""
        if self.sql is not None:
            return "source.sql"
        return "the observation log" if self.observations is not None else self.file.name

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, value: Any) -> Any:
        return {"observations": {}} if value == "observations" else value

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        if sum(each is not None for each in (self.path, self.sql, self.observations)) != 1:
            raise ValueError('give one of source.path, source.sql and source = "observations"')
        if self.only is not None and self.series is None and self.observations is None:
            raise ValueError("only: needs `series`, the column it selects from")
        if self.observations is not None and self.series is not None:
            raise ValueError("series: the log has its own, the clients")
        return self
