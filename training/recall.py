"""Measures and draws which architectures carry one value over a hundred steps and more.

``python -m training.recall --out docs/recall.png`` trains every architecture alike and writes plots and figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.job import Architecture
from training.recall_plots import draw_gates, draw_recall
from training.recall_task import (
    ARCHITECTURES,
    BATCH,
    BIN,
    EVALUATION_SERIES,
    FAR,
    LEARNING_RATE,
    LENGTH,
    MARK_RATE,
    SEEDS,
    UNITS,
    UPDATES,
    UPDATES_PER_CALL,
    Run,
    evaluation,
    train,
)


def figures(runs: Iterable[Run]) -> dict[str, Any]:
    """What was measured, for a JSON file."""
    series, runs = evaluation(), list(runs)
    far = series.lag >= FAR
    return {
        "task": {"length": LENGTH, "mark_rate": MARK_RATE, "units": UNITS, "updates": UPDATES, "batch": BATCH},
        "optimizer": {"name": "adam", "learning_rate": LEARNING_RATE, "gradient_clipping": None},
        "evaluation": {
            "series": EVALUATION_SERIES,
            "positions_at_lag_100_or_more": int(far.sum()),
            "marks_behind_them": int((series.lag == FAR).sum()),
        },
        "libraries": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "lags": list(range(0, LENGTH, BIN)),
        "runs": [
            {
                "architecture": run.architecture,
                "seed": run.seed,
                "r2_at_lag_100_or_more": round(run.far, 4),
                "r2_by_lag": [round(each, 4) for each in run.by_lag.tolist()],
                "losses": [float(f"{each:.4g}") for each in run.losses],
                "seconds": round(run.seconds, 1),
            }
            for run in runs
        ],
    }


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("docs/recall.png"))
@click.option("--architecture", "chosen", type=click.Choice(ARCHITECTURES), multiple=True, default=ARCHITECTURES)
@click.option("--seeds", type=click.IntRange(1), default=len(SEEDS), help="Trainings of each architecture.")
@click.option("--updates", type=click.IntRange(0), default=UPDATES, help="Updates of each training, in steps of 50.")
def main(out: Path, chosen: tuple[Architecture, ...], seeds: int, updates: int) -> None:
    """Train every architecture to recall a value over up to 200 steps, and draw how far back each one reaches.

    Writes the plot of R2 against lag to OUT, the gates of the first lstm to OUT with _gates before the ending, and all
    figures to OUT with the ending .json. About five minutes on two cores.
    """
    if updates % UPDATES_PER_CALL:
        raise click.BadParameter(f"must be a multiple of {UPDATES_PER_CALL}", param_hint="--updates")
    console, runs = Console(stderr=True), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        plan = [(architecture, seed) for architecture in chosen for seed in range(seeds)]
        bars = [progress.add_task(f"{name} seed {seed}", total=updates, loss="", start=False) for name, seed in plan]
        for (name, seed), bar in zip(plan, bars, strict=True):
            progress.start_task(bar)

            def report(done: int, loss: float, bar: Any = bar) -> None:
                progress.update(bar, completed=done, loss=f"loss {loss:.4f}")

            runs.append(train(name, seed, updates=updates, report=report))
            progress.update(bar, loss=f"R2 {runs[-1].far:.3f}")
            if not console.is_terminal:
                console.print(f"{name} seed {seed}: R2 {runs[-1].far:.4f}, {runs[-1].seconds:.0f} s")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(figures(runs), indent=1) + "\n")
    draw_recall(runs, out)
    for run in [run for run in runs if run.architecture == "lstm"][:1]:
        draw_gates(run.model, out.with_name(f"{out.stem}_gates{out.suffix}"))
    table = Table("architecture", *(f"seed {seed}" for seed in range(seeds)), title="R2 at lag >= 100")
    for name in chosen:
        table.add_row(name, *(f"{run.far:.3f}" for run in runs if run.architecture == name))
    Console().print(table)


if __name__ == "__main__":
    main()
