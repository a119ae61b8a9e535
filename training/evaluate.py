"""How good a bundle is: its exported step on the part of each series that training never saw, against baselines.

State streams from the start of every series. One step ahead all of the test part is scored; further ahead every
origin whose whole horizon lies in it. The residual quantiles that bound look-ahead forecasts are fitted on the
validation part and their coverage is scored on the test part: no number is judged on rows that made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest, Residuals
from training import metrics
from training.hindcast import Hindcast, feedback, hindcast
from training.job import Job
from training.references import References
from training.sources import Series
from training.stepping import Stepper
from training.verdict import Check, Verdict, judge
from training.windows import demand_residuals, split

Array = NDArray[Any]
FALLBACK_LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Track:
    """One series with its hindcast: scored from observation `judged` on, hindcast from `learnt` on."""

    series: Series
    learnt: int
    judged: int
    hindcast: Hindcast

    def observed(self, column: int) -> Array:
        """The test part's values of one feature."""
        return self.series.values[self.judged :, column]

    def predicted(self, target: int) -> Array:
        """Point forecasts of the test part, one step ahead."""
        return self.hindcast.next[self.judged - self.learnt :, target, 0]

    def interval(self, target: int, residuals: Residuals) -> tuple[Array, Array]:
        """Bounds of the test part's values, one step ahead: the outer quantiles of y, or residual quantiles."""
        y = self.hindcast.next[self.judged - self.learnt :, target]
        if y.shape[1] >= 3:
            return y[:, 1], y[:, -1]
        cell = residuals.quantiles[0][target]
        return y[:, 0] + cell[0], y[:, 0] + cell[-1]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores and residuals as the manifest keeps them, what they mean, and the tracks for plots."""

    scores: dict[str, Any]
    residuals: Residuals
    verdict: Verdict
    checks: tuple[Check, ...]
    tracks: tuple[Track, ...]
    references: tuple[Mapping[str, Array], ...]
    """For each track the first target's baselines on the test part, one step ahead, (n,) by name."""

    @property
    def reasons(self) -> list[str]:
        """Why this version must not be published; empty if it may."""
        return [check.text for check in self.checks if not check.passed]


def evaluate(
    stepper: Stepper,
    manifest: Manifest,
    job: Job,
    series: Sequence[Series],
    advance: Callable[[float], None] = lambda _: None,
) -> Evaluation:
    """Score the bundle behind `stepper` on `series`; `advance` hears the share done, 0 to 1.

    Raises TooShort if a series can't be split, or if too little of it is left to bound look-ahead forecasts by.
    """
    parts = split(series, job)
    horizon = job.horizon if feedback(manifest) is not None else 1
    demand_residuals(parts, horizon)
    learnt = [len(part) for part in parts.train]
    values = [each.values for each in series]
    past = hindcast(stepper, manifest, values, learnt, horizon, lambda share: advance(0.8 * share))
    tracks = [Track(each, learnt[i], learnt[i] + len(parts.validation[i]), past[i]) for i, each in enumerate(series)]
    residuals = _residuals(tracks, job)
    references = [
        References(job, target, series, [track.judged for track in tracks], horizon)
        for target in range(len(job.targets))
    ]
    advance(0.9)
    targets = {
        target.name: _score_target(job, index, tracks, references[index], residuals)
        for index, target in enumerate(job.targets)
    }
    scores: dict[str, Any] = {
        "part": _judged_part(job),
        "rows": sum(len(t.series) - t.judged for t in tracks),
        "level": round(residuals.levels[-1] - residuals.levels[0], 6),
        "targets": targets,
    }
    verdict, checks = judge(job, scores)
    scores["verdict"] = {"skill": verdict.skill, "text": verdict.text}
    scores["gates"] = [{"text": check.text, "passed": check.passed} for check in checks]
    advance(1.0)
    return Evaluation(scores, residuals, verdict, checks, tuple(tracks), tuple(references[0].next))


def _judged_part(job: Job) -> str:
    share = f"{job.test:.0%}" if job.test_steps is None else f"{job.test_steps:,} observations"
    return f"the last {share} of each series"


def _residuals(tracks: Sequence[Track], job: Job) -> Residuals:
    """Quantiles of observed - predicted by horizon, over the validation part of all series."""
    levels = job.quantiles if len(job.quantiles) >= 2 else FALLBACK_LEVELS
    horizon = tracks[0].hindcast.ahead.shape[1]
    table = []
    for h in range(1, horizon + 1):
        misses = [_misses(track, job, h, track.learnt, track.judged) for track in tracks]
        cells = np.quantile(np.concatenate(misses), levels, axis=0).T
        table.append(tuple(tuple(float(value) for value in cell) for cell in cells))
    return Residuals(levels=tuple(levels), quantiles=tuple(table))


def _misses(track: Track, job: Job, h: int, start: int, stop: int) -> Array:
    """Observed - predicted (n, K), h steps ahead, for the observations start + h - 1 ... stop - 1: none if n < 1."""
    first, n = start - track.hindcast.start, max(0, stop - start - h + 1)
    observed = track.series.values[start + h - 1 : start + h - 1 + n, list(job.observed)]
    return observed - track.hindcast.ahead[first : first + n, h - 1]


def _score_target(
    job: Job, k: int, tracks: Sequence[Track], references: References, residuals: Residuals
) -> dict[str, Any]:
    kind, column = job.targets[k].loss, job.observed[k]
    floor = job.features[column].floor or 1e-6
    observed = [track.observed(column) for track in tracks]
    predicted = [{"model": track.predicted(k), **near} for track, near in zip(tracks, references.next, strict=True)]
    inside = [metrics.coverage(o, *t.interval(k, residuals)) for o, t in zip(observed, tracks, strict=True)]
    counts = [len(o) for o in observed]

    edge, deviation = 0.0, 0.0
    for i, o in enumerate(observed):
        naive = metrics.losses(kind, o, predicted[i]["last_value"], floor)
        mean, variance = metrics.advantage(naive, metrics.losses(kind, o, predicted[i]["model"], floor))
        weight = counts[i] / sum(counts)
        # as if all series moved together, which is the worst: near-copies of one series prove no more than it does
        edge, deviation = edge + weight * mean, deviation + weight * math.sqrt(variance)
    whole = np.concatenate(observed)
    together = {
        name: _measures(kind, whole, np.concatenate([each[name] for each in predicted]), floor)
        for name in ("model", *references.names)
    }
    loss = "qlike" if kind == "qlike" else "rmse"
    return {
        "unit": job.features[column].unit,
        "loss": loss,
        "one_step": together,
        "skill": {
            n: 1 - together["model"][loss] / m[loss] for n, m in together.items() if n != "model" and m[loss] > 0
        },
        "p": metrics.p_value(edge, deviation**2),
        "coverage": float(np.average(inside, weights=counts)),
        "by_horizon": _by_horizon(job, k, tracks, references, residuals),
        "series": {
            track.series.id: {
                "one_step": {name: _measures(kind, observed[i], p, floor) for name, p in predicted[i].items()},
                "coverage": inside[i],
                "rows": counts[i],
            }
            for i, track in enumerate(tracks)
        },
    }


def _measures(kind: metrics.Loss, observed: Array, predicted: Array, floor: float) -> dict[str, float]:
    found = {"rmse": metrics.rmse(observed, predicted), "mae": metrics.mae(observed, predicted)}
    if kind == "qlike":
        found["qlike"] = float(metrics.losses(kind, observed, predicted, floor).mean())
    return found


def _by_horizon(
    job: Job, k: int, tracks: Sequence[Track], references: References, residuals: Residuals
) -> dict[str, Any]:
    """Errors 1 ... H steps ahead over the same origins, and how often residual intervals held the truth."""
    horizon = tracks[0].hindcast.ahead.shape[1]
    kind, column = job.targets[k].loss, job.observed[k]
    floor = job.features[column].floor or 1e-6
    errors: dict[str, list[float]] = {"model": [], **{name: [] for name in references.names}}
    covered = []
    for h in range(1, horizon + 1):
        observed: list[Array] = []
        predicted: dict[str, list[Array]] = {name: [] for name in errors}
        for track, reference in zip(tracks, references.ahead, strict=True):
            n = len(track.series) - track.judged - horizon + 1
            if n < 1:
                continue
            at = track.judged - track.hindcast.start
            observed.append(track.series.values[track.judged + h - 1 : track.judged + h - 1 + n, column])
            predicted["model"].append(track.hindcast.ahead[at : at + n, h - 1, k])
            for name in references.names:
                predicted[name].append(reference[name][:n, h - 1])
        if not observed:
            break
        truth = np.concatenate(observed)
        for name, values in predicted.items():
            found = _measures(kind, truth, np.concatenate(values), floor)
            errors[name].append(found["qlike" if kind == "qlike" else "rmse"])
        point, cell = np.concatenate(predicted["model"]), residuals.quantiles[h - 1][k]
        covered.append(metrics.coverage(truth, point + cell[0], point + cell[-1]))
    return {"errors": errors, "coverage": covered}
