"""Reading a SQL query's rows through SQLAlchemy: all of them, or those from shortly before the newest one known."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pandas as pd
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from training.batch import Batch, SourceInvalid
from training.source_tables import Query, Source

DAY_S = 86400.0


def read_query(source: Source, query: Query, mark: Mapping[str, Any] | None, newest: float | None) -> Batch:
    """The query's rows; with `mark` those that are not older than `newest` less the query's overlap. SourceInvalid.

    A query that can't be asked for its end alone is asked whole: one with a comment behind it, or whose times are of
    another kind by now.
    """
    sql = query.query.strip().rstrip(";")
    engine = _engine(source, query)
    try:
        if mark is not None and newest is not None:
            column = engine.dialect.identifier_preparer.quote_identifier(source.time)
            where = f"SELECT * FROM (\n{sql}\n) AS gathered WHERE gathered.{column} >= :since"
            with suppress(SQLAlchemyError, pd.errors.DatabaseError):
                return Batch(_asked(engine, where, since=_since(mark, newest - query.overlap_s)), dict(mark), False)
        table = _asked(engine, sql)
    except (SQLAlchemyError, pd.errors.DatabaseError) as exc:
        cause = exc if isinstance(exc, SQLAlchemyError) else exc.__cause__
        raise SourceInvalid(source, f"can't be read: {getattr(cause, 'orig', None) or cause}") from exc
    finally:
        engine.dispose()
    return Batch(table, _kind(table[source.time]) if source.time in table and len(table) else {}, True)


def _asked(engine: sqlalchemy.Engine, sql: str, **values: Any) -> pd.DataFrame:
    with engine.connect() as connection:
        return pd.read_sql(sqlalchemy.text(sql), connection, params=values)


def url_of(source: Source, query: Query) -> str:
    """The database's URL, from the environment if the job says so."""
    if query.url is not None:
        return query.url
    found = os.environ.get(query.url_env or "", "")
    if not found:
        raise SourceInvalid(source, f"the environment variable {query.url_env}, source.sql.url_env, holds no URL")
    return found


def _engine(source: Source, query: Query) -> sqlalchemy.Engine:
    try:
        url = sqlalchemy.make_url(url_of(source, query))
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except (SQLAlchemyError, ModuleNotFoundError) as exc:
        raise SourceInvalid(source, f"there is no such database: {exc}") from exc


def _kind(column: pd.Series) -> dict[str, Any]:
    """How the time column says times, so that `since` can say one in the same way."""
    first = column.iloc[0]
    if pd.api.types.is_numeric_dtype(column):
        return {"times": "seconds"}
    if isinstance(first, dt.datetime):  # pandas' own too
        return {"times": "aware" if first.tzinfo is not None else "naive"}
    if isinstance(first, dt.date):
        return {"times": "date"}
    text = str(first)
    return {"times": "text", "between": text[10:11]}


def _since(mark: Mapping[str, Any], seconds: float) -> Any:
    """`seconds` since the epoch as the time column would say it; as text a day earlier, for whatever zone it is in."""
    if mark.get("times") == "seconds":
        return seconds
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    if mark.get("times") == "aware":
        return moment
    if mark.get("times") == "naive":
        return moment.replace(tzinfo=None)
    earlier = moment - dt.timedelta(days=1)
    if mark.get("times") == "date":
        return earlier.date()
    return earlier.strftime(f"%Y-%m-%d{mark['between']}%H:%M:%S") if mark["between"] else f"{earlier:%Y-%m-%d}"
