"""The report of one trained version: PNG plots and one self-contained report.html, the verdict first."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from models.manifest import Manifest
from training import plots
from training.evaluate import Evaluation
from training.job import Job
from training.metrics import shown
from training.references import title
from training.stepping import Stepper

TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True, slots=True)
class Curve:
    """How training went: epochs with `number`, `loss` and `validation`, and the number of the one kept."""

    epochs: Sequence[Any]
    best: int


@dataclass(frozen=True, slots=True)
class _Plot:
    file: str
    title: str
    caption: str
    place: str
    draw: Callable[[plots.Theme], Figure | None]


def write_report(
    folder: Path,
    manifest: Manifest,
    job: Job,
    evaluation: Evaluation,
    stepper: Stepper,
    *,
    curve: Curve | None = None,
    seconds: Mapping[str, float] | None = None,
    quick: bool = False,
    advance: Callable[[float], None] = lambda _: None,
) -> Path:
    """Write `folder`/report.html and its plots as PNG files; the path of report.html.

    `seconds`: how long each stage took, by name. `advance` hears the share done, 0 to 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    wanted = _plots(manifest, job, evaluation, stepper, curve)
    for i, plot in enumerate(wanted):
        light, dark = plot.draw(plots.LIGHT), plot.draw(plots.DARK)
        if light is not None and dark is not None:
            bright = plots.png(light, plots.LIGHT)
            (folder / plot.file).write_bytes(bright)
            shown = {"title": plot.title, "caption": plot.caption, "place": plot.place}
            drawn.append({**shown, "light": _inline(bright), "dark": _inline(plots.png(dark, plots.DARK))})
        advance((i + 1) / len(wanted))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:] + "."
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=manifest.name,
        title=job.title or manifest.name,
        architecture=manifest.architecture,
        quick=quick,
        scores=evaluation.scores,
        verdict=evaluation.verdict,
        checks=[check for check in evaluation.checks if check.text != evaluation.verdict.text],
        facts=_facts(manifest, job, evaluation),
        plots=drawn,
        tables=[_table(name, target) for name, target in evaluation.scores["targets"].items()],
        series=_series_table(job, evaluation),
        decision=evaluation.scores.get("decision"),
        contest=_contest_table(evaluation),
        details=_details(manifest, job, seconds or {}),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _plots(manifest: Manifest, job: Job, evaluation: Evaluation, stepper: Stepper, curve: Curve | None) -> list[_Plot]:
    tracks, scores = evaluation.tracks, evaluation.scores
    steps = round(7 * 86400 / manifest.interval_s) if manifest.interval_s else 120
    steps = int(np.clip(steps, 48, 400))
    found = [
        _Plot(
            "forecast.png", "Forecast against truth",
            f"The last {steps} observations. Each forecast was made one step before, from the state alone.", "top",
            lambda theme: plots.forecast(job, tracks, evaluation.residuals, steps, theme),
        ),
        _Plot(
            "horizon.png", "Error by how far ahead",
            "Every forecast made from the same moments of the test part; beyond one step the model feeds on its own "
            "predictions.", "middle",
            lambda theme: plots.by_horizon(job, scores, theme),
        ),
        _Plot(
            "residuals.png", "Errors and calibration",
            f"Errors of {job.targets[0].name.replace('_', ' ')} on the test part"
            + (", and how many truths lay below each quantile: on the line is as promised." if job.quantiles else "."),
            "middle",
            lambda theme: plots.residuals(job, tracks, evaluation.references, theme),
        ),
    ]  # fmt: skip
    if manifest.gates:
        layer, track = manifest.gates[-1], tracks[0]
        n = min(steps, len(track.hindcast.states) - 1)
        values = stepper.gates(track.series.values[-n:], np.ascontiguousarray(track.hindcast.states[-n - 1 : -1]))
        found.append(
            _Plot(
                "gates.png", "What the gates did",
                f"Layer {layer.layer} ({layer.cell}, {layer.units} units, one row each) over the same observations. "
                "Bright is open: a forget gate near 1 keeps what its unit remembers.", "middle",
                lambda theme: plots.gates(job, track, layer, values[layer.output], theme),
            )
        )  # fmt: skip
    if curve is not None and curve.epochs:
        found.append(
            _Plot(
                "training.png", "Training", "Loss by epoch, in units of the change from step to step.", "middle",
                lambda theme: plots.training_curve(curve.epochs, curve.best, theme),
            )
        )  # fmt: skip
    return found


def _facts(manifest: Manifest, job: Job, evaluation: Evaluation) -> list[dict[str, str]]:
    name = job.targets[0].name
    target = evaluation.scores["targets"][name]
    model, what = target["one_step"]["model"], name.replace("_", " ")
    facts = []
    if target["loss"] == "qlike":
        facts.append({"value": f"{model['qlike']:.3f}", "what": f"QLIKE, {what}"})
    facts.append({"value": f"{shown(model['rmse'])} {target['unit']}", "what": f"RMSE one step ahead, {what}"})
    if "last_value" in target["skill"]:
        skill = target["skill"]["last_value"]
        than = "less error than the last value" if skill >= 0 else "more error than the last value"
        facts.append({"value": f"{abs(skill):.1%}", "what": than})
    facts.append(
        {
            "value": f"{target['coverage']:.1%}",
            "what": f"of truths inside the {evaluation.scores['level']:.0%} interval",
        }
    )
    facts.append({"value": str(manifest.context_length), "what": "observations rebuild a state"})
    return facts


def _table(name: str, target: Mapping[str, Any]) -> dict[str, Any]:
    unit, qlike = target["unit"], target["loss"] == "qlike"
    columns = (["QLIKE"] if qlike else []) + [f"RMSE, {unit}", f"MAE, {unit}", "skill"]
    best_first = sorted(target["one_step"].items(), key=lambda item: item[1][target["loss"]])
    rows = []
    for who, found in best_first:
        cells = [f"{found['qlike']:.3f}"] if qlike else []
        cells += [shown(found["rmse"]), shown(found["mae"])]
        cells.append(f"{target['skill'][who]:+.3f}" if who in target["skill"] else "")
        rows.append({"name": title(who), "cells": cells, "model": who == "model"})
    return {"title": name.replace("_", " "), "columns": columns, "rows": rows}


def _series_table(job: Job, evaluation: Evaluation) -> dict[str, Any] | None:
    target = evaluation.scores["targets"][job.targets[0].name]
    if len(target["series"]) < 2:
        return None
    loss = target["loss"]
    names = list(target["one_step"])
    rows = [
        {
            "name": key,
            "cells": [f"{each['rows']:,}"]
            + [f"{each['one_step'][name][loss]:.3f}" for name in names]
            + [f"{each['coverage']:.1%}"],
        }
        for key, each in target["series"].items()
    ]
    heading = f"Series by series, {loss.upper()} one step ahead"
    return {"title": heading, "columns": ["rows", *map(title, names), "coverage"], "rows": rows}


def _contest_table(evaluation: Evaluation) -> dict[str, Any] | None:
    """The candidate beside the champion it had to beat, if it had to."""
    found = evaluation.scores.get("contest")
    if found is None:
        return None
    rows = [
        {"name": f"{name.replace('_', ' ')}, {'QLIKE' if each['loss'] == 'qlike' else 'mean squared error'}",
         "cells": [shown(each[who]) for who in ("candidate", "champion", "last_value")]}
        for name, each in found["targets"].items()
    ]  # fmt: skip
    columns = ["candidate", f"version {found['champion']}", "last value"]
    return {**found, "columns": columns, "rows": rows, "judged": found["rows"]}


def _details(manifest: Manifest, job: Job, seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    found = [
        ("fingerprint", manifest.fingerprint),
        ("made", f"{manifest.created:%Y-%m-%d %H:%M} UTC"),
        ("state", f"{len(manifest.initial_state)} numbers per client"),
        ("features", ", ".join(f"{f.name} ({f.unit})" if f.unit else f.name for f in manifest.features)),
    ]
    if manifest.data_digest:
        found.append(("data, sha256", manifest.data_digest))
    if job.source.credit:
        found.append(("data from", job.source.credit))
    if seconds:
        found.append(("took", ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())))
    found.append(("made with", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())))
    return found


def _inline(content: bytes) -> str:
    return b64encode(content).decode("ascii")
