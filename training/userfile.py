"""Publishing a user's own Keras model file: what it takes and answers is read off the model and said by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from rich.console import Console

from models.manifest import Feature, Target
from models.repository import Repository
from training.interruption import INTERRUPTION
from training.job import FeatureColumn, Job, TargetColumn
from training.pipeline import Published, digest, judged
from training.quiet import import_frameworks
from training.refusals import ExportRefused, TrainingError, brief
from training.source_tables import Source
from training.sources import load_series
from training.stages import Stages, print_scores
from training.windows import split


@dataclass(frozen=True, slots=True)
class Description:
    """What the user says of a model. Features and targets are (name, unit); none means: named after their place.

    `source`: real series in a file whose columns are called as the features are; None for none.
    """

    name: str
    features: Sequence[tuple[str, str]] = ()
    targets: Sequence[tuple[str, str]] = ()
    quantiles: Sequence[float] = ()
    interval_s: float | None = None
    source: Source | None = None
    horizon: int = 24


def publish_model(
    file: Path, said: Description, repository: Repository, console: Console, *, allow_slow_fading: bool = False
) -> Published:
    """Export the Keras model in `file` and publish it as the next `stable` version of its name.

    With a source the proofs use its series too, and the version gets scores, look-ahead intervals and a report; a
    lack of skill is said, not refused. Raises ExportRefused, TrainingError for a file or a description that does not
    fit, and the source's and the repository's errors.
    """
    stages = Stages(console)
    evaluation = None
    with stages.bars:
        with stages.stage("start TensorFlow", bar=False):
            import_frameworks()
            from training.export import export
        model = load_model(file)
        features, targets = _complete(model, said)
        observed = all(target in features for target in targets) or {t[0] for t in targets} <= {f[0] for f in features}
        scales: dict[str, float] = {}
        series, data, job = [], [], None
        if said.source is not None:
            with stages.stage("load", bar=False):
                job = _job(said, said.source, features, targets if observed else features)
                series = load_series(job)
                data = [each.values for each in split(series, job).train]
            spread = np.concatenate(data).astype(np.float64).std(axis=0)
            found = {name: float(s) or 1.0 for (name, _), s in zip(features, spread, strict=True)}
            scales = {name: found[name] for name, _ in targets if name in found}
        else:
            stages.say("No data given: proved on random series, no intervals and no scores.")
        with repository.stage(said.name) as staging:
            with stages.stage("export") as advance:
                manifest = export(
                    model,
                    staging,
                    name=said.name,
                    features=[Feature(name=name, unit=unit) for name, unit in features],
                    targets=[Target(name=name, unit=unit, scale=scales.get(name, 1.0)) for name, unit in targets],
                    interval_s=said.interval_s,
                    quantiles=said.quantiles,
                    data=data,
                    unscaled=[name for name, _ in targets if name not in scales],
                    job={"exported": file.name},
                    data_digest=digest(series) if series else None,
                    allow_slow_fading=allow_slow_fading,
                    say=stages.say,
                    advance=advance,
                )
            if job is not None and observed:
                manifest, evaluation = judged(stages, staging, manifest, job, series, None)
            elif job is not None:
                stages.say("No scores: some target is not among the features, so nothing in the data observes it.")
            with stages.stage("publish", bar=False):
                version = repository.publish(staging, manifest, last_word=INTERRUPTION.publishing)
    if evaluation is not None:
        print_scores(console, evaluation)
    stages.print_seconds()
    return Published(said.name, version, repository.bundle(said.name, version), evaluation)


def load_model(file: Path) -> Any:
    """The Keras model in `file`; TrainingError says why it can't be read."""
    import keras

    import training.heads
    import training.layers  # noqa: F401 - registers our own layers, which a saved model of ours names

    try:
        return keras.saving.load_model(file, compile=False)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, BadZipFile) as exc:
        raise TrainingError(
            f"{file} is not a Keras model that can be loaded: {brief(exc)} (custom layers need "
            "--import MODULE, a module that registers them)"
        ) from exc


def _complete(model: Any, said: Description) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Features and targets, named after their place where the user named none."""
    from training.allowed import check_ends, check_model  # not at import: they start Keras

    check_ends(model)
    graph = check_model(model)
    n_features, output = int(graph.inputs[0].shape[-1]), tuple(graph.outputs[0].shape)
    features = list(said.features) or _numbered("x", n_features)
    if len(features) != n_features:
        raise TrainingError(f"the model takes {n_features} features, {len(features)} are named with --feature")
    place = -2 if said.quantiles else -1
    if len(output) < (3 if said.quantiles else 2) or output[place] is None or output[-1] is None:
        want = "(batch, time, targets, 1 + quantiles)" if said.quantiles else "(batch, time, targets)"
        raise ExportRefused("", f"the model answers {output}, it has to be {want} with fixed numbers behind time")
    n_targets = int(output[place])
    targets = list(said.targets) or (features if n_targets == n_features else _numbered("y", n_targets))
    for option, names in (("--feature", features), ("--target", targets)):
        if len({name for name, _ in names}) < len(names):
            raise TrainingError(f"{option} names something twice: {', '.join(name for name, _ in names)}")
    if list(said.quantiles) != sorted(set(said.quantiles)):
        raise TrainingError("--quantile levels have to rise, in the order of the model's columns")
    return features, targets


def _numbered(letter: str, count: int) -> list[tuple[str, str]]:
    return [(letter, "")] if count == 1 else [(f"{letter}{i + 1}", "") for i in range(count)]


def _job(
    said: Description, source: Source, features: Sequence[tuple[str, str]], targets: Sequence[tuple[str, str]]
) -> Job:
    return Job(
        name=said.name,
        source=source,
        features=tuple(FeatureColumn(name=name, unit=unit) for name, unit in features),
        targets=tuple(TargetColumn(name=name) for name, _ in targets),
        interval_s=said.interval_s,
        quantiles=tuple(said.quantiles),
        horizon=said.horizon,
    )
