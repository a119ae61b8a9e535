"""What the commands do: from a job's data to a published, judged version, and judging it again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from models.manifest import MANIFEST, MODEL_KERAS, Feature, Manifest, Target
from models.repository import Repository
from training.evaluate import Evaluation, evaluate
from training.interruption import INTERRUPTION
from training.job import Job
from training.quiet import import_frameworks
from training.refusals import NotPublished
from training.report import Curve, write_report
from training.sources import Series, load_series, newest_of
from training.stages import Stages, print_scores
from training.stepping import open_stepper
from training.windows import demand_residuals, split

REPORT = "report"


@dataclass(frozen=True, slots=True)
class Published:
    """A version that is in the repository now. `evaluation` is None for one that was exported without data."""

    name: str
    version: int
    folder: Path
    evaluation: Evaluation | None

    @property
    def report(self) -> Path | None:
        """Where its report lies, if it has one."""
        path = self.folder / REPORT / "report.html"
        return path if path.exists() else None


def train(job: Job, repository: Repository, console: Console, *, quick: bool, allow_no_skill: bool) -> Published:
    """Load, fit, export, evaluate, report, publish; the new version becomes `stable`.

    Raises NotPublished when the version lacks skill over the last value (unless `allow_no_skill`) or misses one of
    the job's gates; its report is then kept beside the repository's models. ExportRefused, SourceInvalid, TooShort
    and the repository's errors pass as they are. Nothing is ever published halfway.
    """
    if quick:
        job = job.quickened()
    stages = Stages(console)
    with stages.bars:
        with stages.stage("load", bar=False):
            series = load_series(job)
            # or a whole training would be for nothing
            demand_residuals(split(series, job), job.ahead)
            repository.refuse_other_contract(job.name, contract_of(job))
        with stages.stage("start TensorFlow", bar=False):
            import_frameworks()
            from training.fit import fit
        with stages.timed("fit"):
            fitted = fit(job, series, quick=quick, progress=stages.bars)
        job = fitted.job
        with repository.stage(job.name) as staging:
            manifest = exported(stages, staging, fitted, series)
            curve = Curve(fitted.history, fitted.best)
            manifest, evaluation = judged(stages, staging, manifest, job, series, curve, quick=quick)
            verdict = evaluation.verdict.text
            reasons = [reason for reason in evaluation.reasons if not (allow_no_skill and reason == verdict)]
            if reasons:
                kept = keep_report(repository, staging, job.name)
                stages.bars.stop()
                print_scores(console, evaluation)
                raise NotPublished(reasons, str(kept))
            with stages.stage("publish", bar=False):
                version = repository.publish(staging, manifest, last_word=INTERRUPTION.publishing)
    print_scores(console, evaluation)
    stages.print_seconds()
    return Published(job.name, version, repository.bundle(job.name, version), evaluation)


def exported(stages: Stages, staging: Path, fitted: Any, series: Sequence[Series]) -> Manifest:
    """Export what was fitted (`training.fit.Fitted`) into the staged bundle, with what trains on from it."""
    from training.export import export  # TensorFlow is there: something was fitted

    job = fitted.job
    parts = split(series, job)
    with stages.stage("export") as advance:
        manifest = export(
            fitted.model,
            staging,
            name=job.name,
            features=features_of(job),
            targets=targets_of(job, parts.train),
            interval_s=job.interval_s,
            quantiles=job.quantiles,
            architecture=job.architecture,
            data=[each.values for each in parts.train],
            job=job.model_dump(mode="json"),
            data_digest=digest(series),
            say=stages.say,
            advance=advance,
        )
        (staging / MODEL_KERAS).parent.mkdir(exist_ok=True)
        fitted.model.save(staging / MODEL_KERAS)
    return manifest.model_copy(
        update={
            "data_until": newest_of(series),
            "trained_until": newest_of(parts.validation),
        }
    )


def judged(
    stages: Stages,
    staging: Path,
    manifest: Manifest,
    job: Job,
    series: Sequence[Series],
    curve: Curve | None,
    *,
    quick: bool = False,
    then: Callable[[Evaluation], Evaluation] = lambda found: found,
) -> tuple[Manifest, Evaluation]:
    """Evaluate the staged bundle and write its report; the manifest with scores and residuals, and what was found.

    `then` may add to what was found before it is reported.
    """
    stepper = open_stepper(staging)
    with stages.stage("evaluate") as advance:
        found = then(evaluate(stepper, manifest, job, series, advance))
    manifest = manifest.model_copy(update={"scores": found.scores, "residuals": found.residuals})
    with stages.stage("report") as advance:
        folder = staging / REPORT
        write_report(
            folder,
            manifest,
            job,
            found,
            stepper,
            curve=curve,
            seconds=stages.seconds,
            quick=quick,
            advance=advance,
        )
    (staging / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest, found


def contract_of(job: Job) -> tuple[Any, ...]:
    """What a version made by `job` would promise: its `Manifest.contract`, before there is a manifest."""
    units = {feature.name: feature.unit for feature in job.features}
    return tuple(units.items()), tuple((target.name, units[target.name]) for target in job.targets), job.interval_s


def features_of(job: Job) -> list[Feature]:
    """The manifest's features of a job."""
    return [Feature(name=f.name, unit=f.unit, minimum=f.minimum, maximum=f.maximum) for f in job.features]


def targets_of(job: Job, train: Sequence[Series]) -> list[Target]:
    """The manifest's targets of a job; their scales are the training values' standard deviations."""
    values = np.concatenate([each.values for each in train]).astype(np.float64)
    return [
        Target(name=target.name, unit=job.features[column].unit, scale=float(values[:, column].std()) or 1.0)
        for target, column in zip(job.targets, job.observed, strict=True)
    ]


def digest(series: Sequence[Series]) -> str:
    """sha256 over the series' ids, times and values as they were read."""
    found = hashlib.sha256()
    for each in series:
        found.update(f"{each.id}\n{each.values.shape}\n".encode())
        found.update(np.ascontiguousarray(each.times, "<f8").tobytes())
        found.update(np.ascontiguousarray(each.values, "<f4").tobytes())
    return found.hexdigest()


def keep_report(repository: Repository, staging: Path, name: str) -> Path:
    """Copy report and manifest of a version that is not published to `<root>/<name>.refused`; the report's path."""
    kept, fresh = repository.root / f"{name}.refused", staging.parent / "refused"
    shutil.copytree(staging / REPORT, fresh)
    shutil.copy(staging / MANIFEST, fresh)
    shutil.rmtree(kept, ignore_errors=True)
    os.rename(fresh, kept)
    return kept / "report.html"
