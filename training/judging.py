"""Judging a published version again, on its own hold-out data or on a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from models.manifest import Manifest
from models.repository import Repository
from training.evaluate import Evaluation, evaluate
from training.job import JOBS, FeatureColumn, Gates, Job, TargetColumn
from training.pipeline import digest
from training.refusals import TrainingError
from training.report import write_report
from training.source_tables import Source
from training.sources import load_series
from training.stages import Stages
from training.stepping import open_stepper

JUDGING = (
    "name",
    "title",
    "source",
    "features",
    "targets",
    "interval_s",
    "quantiles",
    "horizon",
    "season",
    "test",
    "test_steps",
    "gates",
)


def reevaluate(
    repository: Repository,
    name: str,
    console: Console,
    *,
    version: int | None = None,
    data: Path | None = None,
    time: str | None = None,
    series: str | None = None,
    folder: Path | None = None,
    report: Path | None = None,
) -> tuple[int, Evaluation]:
    """Score a published version again: its number (default: the `stable` one) and what was found.

    With `data`, the last part of each series in that file is scored; what comes before warms the state up and fits
    baselines and look-ahead intervals; `time` and `series` name its columns where they are not called as the job's.
    That it is other data than the version was trained on is said. `folder`: where a file that the job names by a
    relative path is looked for (default: the shipped jobs' folder, then the current one). `report`: a folder to write
    a report into; the bundle itself never changes.
    Raises TrainingError if there is no data to score on, and the repository's and the source's errors.
    """
    number = repository.resolve(name) if version is None else version
    stages = Stages(console)
    with stages.bars:
        with stages.stage("verify", bar=False):
            manifest = repository.verify(name, number)
        with stages.stage("load", bar=False):
            job = job_of(manifest, data, time, series, folder)
            loaded = load_series(job)
        if manifest.data_digest not in (None, digest(loaded)):
            stages.say(f"This is other data than {name} version {number} was trained on.")
        stepper = open_stepper(repository.bundle(name, number))
        with stages.stage("evaluate") as advance:
            found = evaluate(stepper, manifest, job, loaded, advance)
        if report is not None:
            with stages.stage("report") as advance:
                write_report(report, manifest, job, found, stepper, seconds=stages.seconds, advance=advance)
    stages.print_seconds()
    return number, found


def job_of(
    manifest: Manifest,
    data: Path | None,
    time: str | None = None,
    series: str | None = None,
    folder: Path | None = None,
) -> Job:
    """The job a version was made by, reading `data` instead of its own file if given, from columns so called.

    Its own file is looked for as `reevaluate` says.
    """
    if data is None and (time is not None or series is not None):
        raise TrainingError("--time and --series name columns of the file in --data: give that too")
    made_by = manifest.job or {}
    if "source" in made_by:
        job = _judging_part(manifest.name, made_by)
    else:
        if data is None:
            raise TrainingError(
                f"{manifest.name} was exported without a job: give its series with --data FILE.csv (columns time, "
                f"{', '.join(f.name for f in manifest.features)})"
            )
        job = _plain_job(manifest, data)
    if data is not None:
        changes: dict[str, Any] = {"path": str(data.resolve()), "sql": None, "observations": None}
        if time is not None:
            changes["time"] = time
        if series is not None:
            changes |= {"series": series, "only": None}
        return job.model_copy(update={"source": job.source.model_copy(update=changes)})
    if job.source.path is None:
        return job
    looked = (JOBS, Path.cwd()) if folder is None else (folder,)
    job.source._folder = next((each for each in looked if (each / job.source.path).exists()), looked[-1])
    if not job.source.file.exists():
        raise TrainingError(
            f"the data {manifest.name} was trained on ({job.source.path}) is not in {job.source._folder}; name the job "
            "file that it lies beside (evaluate JOB.toml), or give it with --data FILE"
        )
    return job


def _judging_part(name: str, made_by: dict[str, Any]) -> Job:
    """The job as far as judging needs it: how it was fitted may have been said in words of another release."""
    kept = {key: made_by[key] for key in JUDGING if key in made_by}
    validation = made_by.get("fit", {}).get("validation")
    try:
        return Job.model_validate(kept | ({} if validation is None else {"fit": {"validation": validation}}))
    except ValidationError as exc:
        raise TrainingError(
            f"the job that {name} was trained by is of another release and can't be read; train it again ({exc})"
        ) from exc


def _plain_job(manifest: Manifest, data: Path) -> Job:
    """A job for a version that has none: columns are called as the features are."""
    features = [f.name for f in manifest.features]
    if strangers := [t.name for t in manifest.targets if t.name not in features]:
        raise TrainingError(f"can't score {', '.join(strangers)}: no feature of {manifest.name} observes it")
    return Job(
        name=manifest.name,
        source=Source(path=str(data.resolve())),
        features=tuple(FeatureColumn(name=f.name, unit=f.unit) for f in manifest.features),
        targets=tuple(TargetColumn(name=t.name) for t in manifest.targets),
        interval_s=manifest.interval_s,
        quantiles=manifest.quantiles,
        horizon=24 if manifest.residuals is None else len(manifest.residuals.quantiles),
        gates=Gates(),
    )
