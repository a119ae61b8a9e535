"""Measures how close a state rebuilt from a client's last observations comes to one with the whole history.

``python -m training.rebuild sensor --out docs/rebuild.png`` does it for a published version on its hold-out data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from training.stepping import Stepper

Array = NDArray[np.float32]
LONGEST = 512  # the longest context a bundle may have
BOUND = 0.01  # of scale: what the context length promises
STARTS = 512


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """|rebuilt - whole history|, in units of scale, the worst over targets and quantiles.

    ``error`` (longest, starts) float32: row c - 1 for states rebuilt from c observations.
    """

    context_length: int
    error: Array

    def worst(self) -> Array:
        """The largest error of each context length, (longest,)."""
        return np.asarray(self.error.max(axis=1))

    def figures(self) -> dict[str, Any]:
        """What was measured, in percent of scale, for a JSON file."""
        percent = 100 * self.error.astype(np.float64)
        summary = {
            "largest": percent.max(axis=1),
            "percentile_99": np.quantile(percent, 0.99, axis=1),
            "mean": percent.mean(axis=1),
        }
        return {
            "context_length": self.context_length,
            "states": self.error.shape[1],
            "percent_of_scale_by_observations": {
                name: [float(f"{value:.4g}") for value in values] for name, values in summary.items()
            },
        }


def measure(
    stepper: Stepper, manifest: Manifest, series: Array, first: int, starts: int = STARTS, longest: int = LONGEST
) -> Rebuilt:
    """Rebuild states within ``series`` (n, F) from `starts` places on, the earliest of them observation `first`.

    The reference has seen the series from its first observation on. A state begun afresh at a place is, c
    observations later, the one rebuilt from a context of c. ValueError for a series too short for that.
    """
    places = np.unique(np.linspace(first, len(series) - longest, starts).astype(int))
    if first < 1 or places[0] < first:
        raise ValueError(f"{len(series)} observations are too few to rebuild {longest} of them after the {first}th")
    fresh = np.array(manifest.initial_state, np.float32)[None]
    scale = np.array([target.scale for target in manifest.targets], np.float32)[:, None]
    state, whole = fresh, []
    for x in series:
        y, state = stepper.step(x[None], state)
        whole.append(y[0])
    state, reference, error = np.repeat(fresh, len(places), axis=0), np.stack(whole), []
    for c in range(longest):
        y, state = stepper.step(series[places + c], state)
        error.append((np.abs(y - reference[places + c]) / scale).max(axis=(1, 2)))
    return Rebuilt(manifest.context_length, np.stack(error))


def draw(rebuilt: Rebuilt, title: str, path: Path) -> None:
    """Error against context length, logarithmic: the largest, the 99th percentile and the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    seen = rebuilt.figures()["percent_of_scale_by_observations"]
    lengths = np.arange(1, len(rebuilt.error) + 1)
    for name, label, colour, style in (
        ("largest", "largest", "#0072B2", "-"),
        ("percentile_99", "99th percentile", "#E69F00", "--"),
        ("mean", "mean", "#009E73", "-"),
    ):
        axes.plot(lengths, np.maximum(seen[name], 1e-6), style, color=colour, linewidth=2, label=label)
    c = rebuilt.context_length
    axes.axhline(100 * BOUND, color="#222222", linestyle=":", linewidth=1)
    axes.text(len(lengths), 110 * BOUND, "1 % of scale: the promise", ha="right", va="bottom", fontsize=8.5)
    axes.axvline(c, color="#D55E00", linewidth=1)
    axes.text(c + 4, 30, f"the context length, {c}", color="#D55E00", fontsize=8.5)
    axes.set(yscale="log", xlim=(1, len(lengths)), xlabel="observations the state is rebuilt from",
             ylabel="difference of predictions, % of scale")  # fmt: skip
    axes.set_title(title, loc="left", color="#222222")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


@click.command(context_settings={"show_default": True})
@click.argument("name")
@click.option("--models-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("models/published"))
@click.option("--version", type=click.IntRange(1), help="Which version.  [default: the stable one]")
@click.option("--starts", type=click.IntRange(1), default=STARTS, help="States to rebuild, over the hold-out data.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("docs/rebuild.png"))
def main(name: str, models_dir: Path, version: int | None, starts: int, out: Path) -> None:
    """Measure how close states rebuilt from 1 to 512 observations come to those with the whole history.

    Rebuilds states of the published model NAME all over the hold-out part of its longest series, writes the plot to
    OUT and the figures to OUT with the ending .json. Some seconds.
    """
    from models.errors import RepositoryError
    from models.repository import Repository
    from training.judging import job_of
    from training.refusals import TrainingError
    from training.sources import load_series
    from training.stepping import open_stepper
    from training.windows import split

    try:
        repository = Repository(models_dir)
        number = repository.resolve(name) if version is None else version
        manifest = repository.verify(name, number)
        job = job_of(manifest, None)
        series = max(load_series(job), key=len)
        test = len(split([series], job).test[0])
        stepper = open_stepper(repository.bundle(name, number))
        found = measure(stepper, manifest, series.values, len(series) - test, starts)
    except (RepositoryError, TrainingError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({"model": name, **found.figures()}, indent=1) + "\n")
    draw(found, f"How much of its past does a rebuilt state of {name} need?", out)
    for c in sorted({1, 8, 24, 48, 64, 96, found.context_length, 128, 256, LONGEST}):
        percent = 100 * found.error[c - 1]
        click.echo(f"{c:4} observations: largest {percent.max():9.4f}, mean {percent.mean():9.4f} % of scale")


if __name__ == "__main__":
    main()
