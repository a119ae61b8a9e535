"""`make scale`: how throughput and p99 go with clients kept, workers, model size, and replicas over Redis.

Throughput is told as a ratio to the empty endpoint, which is asked in turn. Needs wrk and redis-server; about six
minutes, and four more for a million clients.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import curves, scale_page
from benchmarks.bundle import sensor_repository
from benchmarks.load import BenchmarkFailed, find_wrk
from benchmarks.machine import machine
from benchmarks.redis_server import find_redis
from benchmarks.scale_plot import draw
from benchmarks.sections import write_section
from benchmarks.table import BUSY

CLIENTS = "1000,100000"
UNITS = [32, 64, 128, 256, 512]


def numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """Of `1000,100000` the numbers, rising."""
    try:
        found = sorted({int(part) for part in value.split(",")})
    except ValueError as error:
        raise click.BadParameter("numbers with commas between are wanted, like 1000,100000") from error
    if found[0] < 1:
        raise click.BadParameter("a store has one client at the least")
    return found


@click.command(help=__doc__)
@click.option("--clients", default=CLIENTS, show_default=True, callback=numbers, help="Sizes of the stores.")
@click.option("--seconds", default=3, show_default=True, help="Length of each load.")
@click.option("--rounds", default=4, show_default=True, help="Loads of each kind; the median counts.")
@click.option("--quick", is_flag=True, help="One load of a second for each point: whether it works, no figures.")
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--folder", default=Path("build"), type=click.Path(path_type=Path), show_default=True)
@click.option("--out", default=Path("build"), type=click.Path(path_type=Path), help="Folder of scale.json and .png.")
@click.option("--page", "markdown", type=click.Path(path_type=Path), help="Write the section of docs, too.")
def main(
    clients: list[int],
    seconds: int,
    rounds: int,
    quick: bool,
    models_dir: Path,
    folder: Path,
    out: Path,
    markdown: Path | None,
) -> None:
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    if quick:
        seconds, rounds = 1, 1
    columns = TextColumn("{task.description:<44}"), BarColumn(), TimeElapsedColumn()
    try:
        find_wrk(), find_redis()
        with (
            tempfile.TemporaryDirectory(prefix="scale-", dir=folder) as scratch,
            Progress(*columns, console=console, transient=True) as progress,
        ):
            loads = (len(clients) + 2 + len(UNITS) + 2 + 4) * (rounds + 1)
            task = progress.add_task("a bundle to measure", total=loads + len(clients) + 1 + len(UNITS) + 1)

            def say(what: str) -> None:
                progress.update(task, advance=1, description=what)

            seen = measure(models_dir, Path(scratch), clients, curves.Pace(seconds, rounds, say))
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    (out / "scale.json").write_text(json.dumps(seen, indent=1) + "\n", encoding="utf-8")
    draw(seen, out / "scale.png")
    console.print(scale_page.section(seen), markup=False, highlight=False)
    if seen["machine"]["load_before"] > BUSY:
        console.print(f"[yellow]The machine was busy (load {seen['machine']['load_before']}).")
    if markdown is not None:
        write_section(markdown, scale_page.NAME, scale_page.section(seen))
    console.print(f"written to {out}/scale.json and {out}/scale.png")


def measure(models: Path, scratch: Path, clients: list[int], pace: curves.Pace) -> dict[str, Any]:
    """The four curves as one JSON object. BenchmarkFailed if an answer was not 2xx or a server did not start."""
    said = machine()
    repository, bundle = sensor_repository(models, scratch / "models")
    seen: dict[str, Any] = {"machine": said, "bundle": bundle, "seconds": pace.seconds, "rounds": pace.rounds}
    seen["workers"] = curves.of_workers(repository, scratch, pace)
    seen["replicas"] = curves.of_replicas(repository, scratch, pace)
    seen["units"] = curves.of_units(scratch, UNITS, pace)
    seen["clients"] = curves.of_clients(repository, scratch, clients, pace)
    return seen


if __name__ == "__main__":
    main()
