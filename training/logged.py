"""Reading the observation log of a job's model: all of it, or the parts that are new or have grown."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from training.batch import Batch, SourceInvalid
from training.compact import NoLog, compact
from training.files import new_files
from training.job import FromLog, Job
from training.observed import PARQUET, columns_of, parts, read_part

DEFAULT_TENANT = "default"


def log_folder(log: FromLog) -> Path:
    """Where the log lies: the job's word, else the environment's, else the service's default."""
    return Path(log.dir or os.environ.get("RECURVE_OBSERVATIONS_DIR") or "var/observations")


def read_log(job: Job, log: FromLog, mark: Mapping[str, Any] | None) -> Batch:
    """What the service logged of the job's model, compacted first; columns as those of `training.sources.rows_of`.

    A series is a client: its name, behind `tenant/` if that is not the default one. SourceInvalid if there is no log,
    or one of other features.
    """
    source, folder = job.source, log_folder(log)
    try:
        compact(folder)
    except NoLog as exc:
        raise SourceInvalid(source, str(exc)) from exc
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        # ours to read, and for someone else to compact
    model = folder / PARQUET / job.name
    files = parts(model) if model.is_dir() else []
    if not files:
        raise SourceInvalid(source, f"nothing is logged of {job.name} in {folder}; is it in --log-observations?")
    fresh, now, whole = new_files(model, files, mark, growing=True)
    if not fresh:
        return Batch(None, now, whole)
    features = columns_of(feature.name for feature in job.features)
    table = pd.concat([_part(job, part, features) for part in fresh], ignore_index=True)
    return Batch(table.sort_values("absorbed", kind="stable"), now, whole)


def _part(job: Job, part: Path, features: list[str]) -> pd.DataFrame:
    table = read_part(part)
    if absent := [column for column in features if column not in table]:
        raise SourceInvalid(job.source, f"{part} holds no {', '.join(absent)}; it is of another model: move it away")
    ours = table["tenant"] == DEFAULT_TENANT
    series = table["client"].where(ours, table["tenant"] + "/" + table["client"])
    named = {"series": series, **{name: table[name] for name in ("time", "clock", "absorbed")}}
    return pd.DataFrame({**named, **{f"x{at}": table[column] for at, column in enumerate(features)}})
