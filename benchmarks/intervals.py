"""Measures how often online intervals hold, beside the model's own: on shipped series and where noise triples.

``python -m benchmarks.intervals --out docs/intervals.png`` does it through the service's own predictor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from models.repository import Repository
from service.core.predictor import Limits, Predictor
from service.core.registry import Registry, Served, ServedModel
from service.core.requests import PredictRequest
from service.core.types import ClientKey, FeatureSpec, ModelSpec, TargetSpec
from service.engines import open_engine
from service.specs import spec_of
from service.stores import open_store
from training.judging import job_of
from training.sources import load_series
from training.windows import split

Array = NDArray[np.float64]
AT_ONCE = 500  # observations of a request: as many single requests would be answered
WINDOW = 1000
HALF = 4000  # steps before the noise triples, and after
Z95 = 1.6448536  # a normal variable is below it with 95 %


@dataclass(frozen=True, slots=True)
class Followed:
    """One target of one series: ``inside`` (n,) whether each interval held, ``width`` (n,) how wide it was, ``score``
    (n,) the interval score, lower is better (Gneiting & Raftery 2007)."""

    inside: NDArray[np.bool_]
    width: Array
    score: Array

    def windows(self, length: int = WINDOW) -> Array:
        """Coverage of every stretch of `length` observations in a row; empty for a shorter series."""
        total = np.concatenate([[0.0], np.cumsum(self.inside)])
        return np.asarray((total[length:] - total[:-length]) / length)


class Noise:
    """Expects zero, with the interval of unit normal noise: what a model knows that was fitted before the change."""

    def step(self, x: NDArray[np.float32], state: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """See Engine."""
        return np.tile(np.float32([0.0, -Z95, Z95]), (len(x), 1, 1)), state.copy()

    def gates(self, x: NDArray[np.float32], state: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """None."""
        return []

    def close(self) -> None:
        """Nothing is held."""


def follow(served: Served, values: NDArray[np.float32], judged: int, *, adaptive: bool) -> list[Followed]:
    """Predict ``values`` (n, F) one after the other as one client; the last `judged` of them are judged, each by the
    interval told before it. The rest is the client's history: absorbed, but not scored. One entry per target."""
    spec, registry = served.spec, Registry()
    registry.replace({spec.name: ServedModel(spec.name, 1, {"stable": spec.version}, {spec.version: served})})
    predictor = Predictor(registry, open_store("memory://"), limits=Limits(adaptive_intervals=adaptive))
    key = ClientKey("default", spec.name, "one")
    told = []
    if judged < len(values):
        answer = predictor.prime(key, PredictRequest(values[:-judged]))
        told.append(answer.interval)
    pieces = (values[at : at + AT_ONCE] for at in range(len(values) - judged, len(values), AT_ONCE))
    told += [predictor.predict(key, PredictRequest(piece)).interval for piece in pieces]
    bounds = np.concatenate(told).astype(np.float64)[:-1]
    truth = values[-len(bounds) :].astype(np.float64)
    found = []
    for k, feature in enumerate(spec.observed):
        (lower, upper), seen = bounds[:, k].T, truth[:, feature]
        beyond = np.maximum(lower - seen, 0) + np.maximum(seen - upper, 0)
        alpha = 1 - (spec.level or 0.0)
        found.append(Followed((lower <= seen) & (seen <= upper), upper - lower, upper - lower + 2 / alpha * beyond))
    return found


def shift(seed: int, ratio: float = 3.0) -> NDArray[np.float32]:
    """Normal noise, (2 * HALF, 1), whose scale is `ratio` times as large in the second half."""
    noise = np.random.default_rng(seed).normal(size=(2 * HALF, 1))
    noise[HALF:] *= ratio
    return noise.astype(np.float32)


def noise_model() -> Served:
    """A version that expects unit normal noise."""
    spec = ModelSpec(
        name="noise",
        version=1,
        fingerprint="00" * 32,
        features=(FeatureSpec("x", "1"),),
        targets=(TargetSpec("x", "1", 1.0),),
        interval_s=None,
        initial_state=np.zeros(1, np.float32),
        quantiles=(0.05, 0.95),
        context_length=1,
        level=0.9,
        interval_columns=(1, 2),
        observed=np.array([0]),
    )
    return Served(spec, Noise(), {})  # type: ignore[arg-type]


def published(models_dir: Path, name: str) -> tuple[Served, list[tuple[str, NDArray[np.float32], int]]]:
    """The stable version of a model with a job, and its series: name, values, how many of them are for judging."""
    repository = Repository(models_dir)
    number = repository.resolve(name)
    manifest = repository.verify(name, number)
    spec = spec_of(manifest, number)
    job = job_of(manifest, None)
    series = load_series(job)
    tests = [len(part) for part in split(series, job).test]
    engine = open_engine(repository.bundle(name, number), spec, "auto")
    return Served(spec, engine, {}), [(s.id, s.values, n) for s, n in zip(series, tests, strict=True)]


def figures(own: Followed, adaptive: Followed) -> dict[str, Any]:
    """What was measured of one target, both ways."""

    def of(found: Followed) -> dict[str, Any]:
        windows = found.windows()
        worst = {} if not len(windows) else {"lowest": windows.min(), "highest": windows.max()}
        numbers = {"coverage": found.inside.mean(), **worst, "width": found.width.mean(), "score": found.score.mean()}
        return {name: round(float(value), 4) for name, value in numbers.items()}

    return {"judged": len(own.inside), "own": of(own), "adaptive": of(adaptive)}


def draw(parts: list[tuple[str, Followed, Followed]], path: Path) -> None:
    """Coverage of the last 250 observations over time, both ways, one panel each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.3 * len(parts)), dpi=130, layout="constrained")
    for axes, (title, own, adaptive) in zip(np.atleast_1d(figure.subplots(len(parts), 1)), parts, strict=True):
        for found, label, colour in ((own, "the model's own", "#E69F00"), (adaptive, "adaptive", "#0072B2")):
            line = 100 * found.windows(250)
            axes.plot(np.arange(250, 250 + len(line)), line, color=colour, linewidth=1.4, label=label)
        axes.axhline(90, color="#222222", linestyle=":", linewidth=1)
        axes.set_title(title, loc="left", fontsize=10, color="#222222")
        axes.set(ylabel="covered, %", xlim=(250, 250 + len(line)))
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="observations (coverage is that of the last 250)")
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


@click.command(context_settings={"show_default": True})
@click.option("--models-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("models/published"))
@click.option("--seed", type=int, default=7, help="Of the noise that triples.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("docs/intervals.png"))
def main(models_dir: Path, seed: int, out: Path) -> None:
    """Measure the coverage of intervals with and without adaptation.

    Follows the published models sensor and finance (see `python -m training train`) over the part of their series that
    training never saw, and unit noise that triples half-way. Writes the plot to OUT, the figures beside it as .json.
    """
    from rich.progress import track

    cases = [("noise", "triples half-way", noise_model(), shift(seed), 2 * HALF)]
    for name in ("sensor", "finance"):
        served, series = published(models_dir, name)
        cases += [(name, each, served, values, judged) for each, values, judged in series]
    measured, panels = [], []
    for name, each, served, values, judged in track(cases, "following"):
        pair = [follow(served, values, judged, adaptive=adaptive) for adaptive in (False, True)]
        for target, own, adaptive in zip(served.spec.targets, *pair, strict=True):
            measured.append({"model": name, "series": each, "target": target.name, **figures(own, adaptive)})
            if name == "noise":
                halves = {"before": slice(0, HALF), "after": slice(HALF, None), "first_1000": slice(HALF, HALF + 1000)}
                for when, part in halves.items():
                    measured[-1][when] = {
                        "own": round(float(own.inside[part].mean()), 4),
                        "adaptive": round(float(adaptive.inside[part].mean()), 4),
                    }
            if name != "finance":
                panels.append((f"{name}, {target.name if name == 'sensor' else each}", own, adaptive))
    out.parent.mkdir(parents=True, exist_ok=True)
    page = {"seed": seed, "window": WINDOW, "found": measured}
    out.with_suffix(".json").write_text(json.dumps(page, indent=1) + "\n")
    draw(panels, out)
    for line in measured:
        click.echo(f"{line['model']:8} {line['series'][:18]:18} {line['target']:12} " + " ".join(
            f"{way}: {line[way]['coverage']:.3f}" + (f" [{line[way]['lowest']:.3f}, {line[way]['highest']:.3f}]"
            if "lowest" in line[way] else "") for way in ("own", "adaptive")))  # fmt: skip


if __name__ == "__main__":
    main()
