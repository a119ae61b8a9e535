"""The training command line: `python -m training --help` explains."""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from training.again import retrain, schedule
from training.commands import Commands
from training.compacting import compact
from training.interruption import INTERRUPTION
from training.options import MODELS_DIR

NAME = r"[a-z0-9][a-z0-9_-]{0,63}"  # as models.manifest.Name, which loads too much for --help
MIN_INTERVAL_S = 1e-3
ARCHITECTURES = click.Choice(["lstm", "gru", "simple_rnn", "feed_forward"])


def _check_name(context: click.Context, option: click.Parameter, value: str) -> str:
    if re.fullmatch(NAME, value) is None:
        raise click.BadParameter(f"{value!r} is not a name: a to z, 0 to 9, - and _, at most 64, - and _ not first")
    return value


def _check_interval(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (MIN_INTERVAL_S <= value < math.inf):
        raise click.BadParameter(f"{value:g} is not a number of seconds of at least {MIN_INTERVAL_S:g}")
    return value


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Train forecasters, judge them and publish them for the service.

    \b
    python -m training train sensor --quick        a shipped job, about a minute
    python -m training train my/job.toml           your own data (see training/jobs/sensor.toml)
    python -m training retrain my/job.toml         again, on what is new; publishes what beats what is served
    python -m training schedule my/job.toml        the same by the clock, and when the service notes drift
    python -m training evaluate sensor             how good is what is published?
    python -m training export my.keras --name lab  your own Keras model
    python -m training compact                     what the service logged, into Parquet
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@main.command()
@click.argument("job", metavar="NAME|JOB.toml")
@MODELS_DIR
@click.option("--quick", is_flag=True, help="A short training with gates to match, for trying things out.")
@click.option("--allow-no-skill", is_flag=True, help="Publish even if it does not beat the last value.")
@click.option("--architecture", type=ARCHITECTURES, help="Instead of the job's own.")
def train(job: str, models_dir: Path, quick: bool, allow_no_skill: bool, architecture: str | None) -> None:
    """Train a job, judge the result on data it never saw, and publish it as the stable version.

    NAME is a shipped job (sensor, finance, eurusd); JOB.toml is a file of yours. What lacks skill over the last value
    or misses one of the job's gates is not published: the command fails, and its report is kept.

    \b
    python -m training train sensor
    python -m training train finance --architecture gru --models-dir /srv/models
    """
    from rich.console import Console

    from models.repository import Repository
    from training.job import load_job
    from training.pipeline import train as run

    console = Console()
    loaded = load_job(job)
    if architecture is not None:
        loaded = loaded.model_copy(update={"architecture": architecture})
    done = run(loaded, Repository(models_dir), console, quick=quick, allow_no_skill=allow_no_skill)
    _print_published(console, done.name, done.version, done.folder, done.report)


@main.command()
@click.argument("name", metavar="NAME|JOB.toml")
@MODELS_DIR
@click.option("--version", type=click.IntRange(min=1), help="Which version.  [default: the stable one]")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Judge on the last part of the series in this CSV or Parquet file instead of the job's own.",
)
@click.option("--time", "time_column", help="The time column of --data.  [default: the job's]")
@click.option("--series", "series_column", help="The column of --data that tells its series apart.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write a report into this folder.")
def evaluate(
    name: str,
    models_dir: Path,
    version: int | None,
    data: Path | None,
    time_column: str | None,
    series_column: str | None,
    report: Path | None,
) -> None:
    """Judge a published version again, through its exported step, beside simple forecasts.

    NAME is a model; a job file of yours names it as well, and says where its data are. Fails if the version misses
    a gate of its job.

    \b
    python -m training evaluate sensor
    python -m training evaluate my/job.toml
    python -m training evaluate sensor --version 2 --data last_winter.csv --report out/
    """
    from rich.console import Console

    from models.repository import Repository
    from training.job import load_job
    from training.judging import reevaluate
    from training.stages import print_scores

    folder = None
    if name.endswith(".toml"):
        name, folder = load_job(name).name, Path(name).parent.resolve()
    console = Console()
    number, found = reevaluate(
        Repository(models_dir),
        name,
        console,
        version=version,
        data=data,
        time=time_column,
        series=series_column,
        folder=folder,
        report=report,
    )
    print_scores(console, found)
    console.print(f"{name} version {number}: {found.verdict.text}", highlight=False, soft_wrap=True)
    if report is not None:
        console.print(f"Report: {report / 'report.html'}", highlight=False, soft_wrap=True)
    if found.reasons:
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("model", metavar="MODEL.keras", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, callback=_check_name, help="What the service will call it.")
@click.option("--feature", "features", multiple=True, metavar="NAME[:UNIT]", help="One input column, in order.")
@click.option("--target", "targets", multiple=True, metavar="NAME[:UNIT]", help="One output.  [default: the features]")
@click.option(
    "--quantile",
    "quantiles",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Level of an output column after the point forecast, for a model that answers quantiles.",
)
@click.option("--interval", type=float, callback=_check_interval, help="Seconds between two observations.")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Real series (CSV or Parquet, columns named as the features) to prove and to judge with.",
)
@click.option("--time", "time_column", default="time", show_default=True, help="The time column of --data.")
@click.option("--series", "series_column", help="The column of --data that tells its series apart.")
@click.option(
    "--horizon", type=click.IntRange(1, 512), default=24, show_default=True, help="Steps --data is judged ahead."
)
@click.option(
    "--import", "modules", multiple=True, metavar="MODULE", help="Import this first: it registers custom layers."
)
@click.option("--allow-slow-fading", is_flag=True, help="Export even if its memory lasts beyond 512 observations.")
@MODELS_DIR
def export(
    model: Path,
    name: str,
    features: tuple[str, ...],
    targets: tuple[str, ...],
    quantiles: tuple[float, ...],
    interval: float | None,
    data: Path | None,
    time_column: str,
    series_column: str | None,
    horizon: int,
    modules: tuple[str, ...],
    allow_slow_fading: bool,
    models_dir: Path,
) -> None:
    """Publish your own Keras model: any causal functional model over (batch, time, features), float32.

    It is taken apart into a single step with explicit state and proved to answer as before; what can't be stepped
    is refused with the layer's name and the reason. It may answer (batch, time, targets), the last step alone
    (batch, targets), or with quantiles (batch, time, targets, 1 + quantiles). It has to take and answer raw units.
    Without --data it gets no intervals and no scores.

    \b
    python -m training export my.keras --name lab --feature temperature:degC --interval 60
    python -m training export my.keras --name lab --feature load:kW --feature heat:degC --target load:kW --data lab.csv
    """
    from rich.console import Console

    from models.repository import Repository
    from training.source_tables import Source
    from training.userfile import Description, publish_model

    sys.path.insert(0, "")
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as exc:  # a module of the user's may raise anything
            found = f"{type(exc).__name__}: {exc}"
            raise click.BadParameter(f"{module} can't be imported: {found}", param_hint="--import") from exc
    source = None
    if data is not None:
        source = Source(path=str(data.resolve()), time=time_column, series=series_column)
    said = Description(
        name,
        [_named(each) for each in features],
        [_named(each) for each in targets],
        quantiles,
        interval,
        source,
        horizon,
    )
    console = Console()
    done = publish_model(model, said, Repository(models_dir), console, allow_slow_fading=allow_slow_fading)
    _print_published(console, done.name, done.version, done.folder, done.report)


def _named(text: str) -> tuple[str, str]:
    name, _, unit = text.partition(":")
    if not 1 <= len(name.strip()) <= 64:
        raise click.BadParameter(f"{text!r} is not NAME or NAME:UNIT")
    return name.strip(), unit.strip()


def _print_published(console: Any, name: str, version: int, folder: Path, report: Path | None) -> None:
    console.print(f"Published {name} version {version} as stable: {folder}", style="bold green", soft_wrap=True)
    if report is not None:
        console.print(f"Report: {report}", highlight=False, soft_wrap=True)


main.add_command(compact)
main.add_command(retrain)
main.add_command(schedule)


def run(arguments: Sequence[str] | None = None) -> None:
    """The command line of this process, to its end."""
    INTERRUPTION.listen()  # a stopped container cleans up as Ctrl-C does
    try:
        main(arguments, prog_name="python -m training")
    finally:
        INTERRUPTION.leave()


if __name__ == "__main__":
    run()
