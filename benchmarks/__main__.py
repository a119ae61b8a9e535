"""`make bench`: everything in one run, so that the figures may be compared with each other.

The empty endpoint and our service, with one worker, with two, and with one under granian where that is installed, run
side by side and are asked in turn, round after round; a figure is the median of its rounds. The load generator shares
the machine with them, as in the reference.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import bulk, bulk_bare, million_page, priming, scale_page
from benchmarks.bundle import NAME, sensor_repository, two_models
from benchmarks.engine import beside_bare
from benchmarks.load import BenchmarkFailed, Load, find_wrk, middle, press
from benchmarks.machine import machine
from benchmarks.page import page
from benchmarks.sections import carry_over
from benchmarks.servers import (
    Server,
    empty_endpoint,
    free_port,
    has_granian,
    has_tensorflow,
    resident_mb,
    running,
    service,
)
from benchmarks.store import measure as measure_store
from benchmarks.table import show
from benchmarks.wanted import GRANIAN, ONE, TWO, verdicts

REFERENCE = "empty"
CONNECTIONS = (1, 8, 64)
STARTS = 3
PART_ROUNDS = 6  # of bulk and of predicts beside histories, at most
SECTIONS = million_page.NAME, scale_page.NAME


@click.command(help=__doc__)
@click.option("--seconds", default=1, show_default=True, help="Length of each load.")
@click.option("--rounds", default=12, show_default=True, help="Loads of each kind; the median counts.")
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--output", default=Path("build/bench.json"), type=click.Path(path_type=Path), show_default=True)
@click.option("--page", "markdown", type=click.Path(path_type=Path), help="Write the figures as a page of docs, too.")
def main(seconds: int, rounds: int, models_dir: Path, output: Path, markdown: Path | None) -> None:
    console = Console()
    try:
        find_wrk()
        with tempfile.TemporaryDirectory(prefix="recurve-bench-") as scratch, _progress(console) as progress:
            total = STARTS + len(CONNECTIONS) * (3 + has_granian()) * rounds + 2 * min(rounds, PART_ROUNDS) + 8
            task = progress.add_task("a bundle to measure", total=total)

            def say(what: str) -> None:
                progress.update(task, advance=1, description=what)

            seen = measure_all(models_dir, Path(scratch), seconds, rounds, say)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(seen, indent=2) + "\n", encoding="utf-8")
    show(console, seen)
    if markdown is not None:
        markdown.write_text(carry_over(markdown, page(seen), *SECTIONS), encoding="utf-8")
    console.print(f"written to {output}")


def measure_all(models: Path, scratch: Path, seconds: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure as one JSON object. BenchmarkFailed if an answer was not 2xx or a server did not start."""
    repository, bundle = sensor_repository(models, scratch / "models")
    seen: dict[str, Any] = {"machine": machine(), "bundle": bundle, "seconds": seconds, "rounds": rounds}
    starts, two = [], two_models(models, scratch / "two")
    for n in range(STARTS):
        say("start to ready")
        port = free_port()
        with running(service(port, 1, two, scratch / f"start-{n}"), port, "/readyz", scratch / "log") as server:
            starts.append(server.ready_s)
    seen["ready_s"] = median(starts)
    with ExitStack() as stack:

        def start(name: str, workers: int, kind: str = "gunicorn") -> Server:
            port, log = free_port(), scratch / f"{name}.log"
            command = empty_endpoint(port) if name == REFERENCE else service(port, workers, two, scratch / name, kind)
            return stack.enter_context(running(command, port, "/" if name == REFERENCE else "/readyz", log))

        servers = {REFERENCE: start(REFERENCE, 1), ONE: start("one", 1), TWO: start("two", 2)}
        if has_granian():
            servers[GRANIAN] = start("granian", 1, "granian")
        seen["load"] = press_in_turn(servers, seconds, rounds, say)
        seen["workers"] = {
            name: [{"resident_mb": resident_mb(pid), "tensorflow": has_tensorflow(pid)} for pid in server.workers()]
            for name, server in servers.items()
        }
    say("engine steps")
    seen["engine"] = {batch: asdict(one) for batch, one in beside_bare(repository, NAME).items()}
    say("store verbs")
    seen["store"] = [measure_store(f"sqlite:///{scratch}/store", n, 2.0, 4600, 2000) for n in (1, 2)]
    seen["bulk"] = bulk.measure(repository, scratch, seconds, min(rounds, PART_ROUNDS), say)
    say("the libraries of bulk alone")
    seen["bulk_bare"] = bulk_bare.measure(repository, scratch)
    seen["priming"] = priming.measure(repository, scratch, seconds, min(rounds, PART_ROUNDS), say)
    seen["wanted"] = verdicts(seen)
    return seen


def press_in_turn(
    servers: dict[str, Server], seconds: int, rounds: int, say: Callable[[str], None]
) -> dict[str, dict[int, dict[str, float]]]:
    """Server and connections -> the medians of its rounds and its ratio to the reference, round by round."""
    loads: dict[str, dict[int, list[Load]]] = {name: {c: [] for c in CONNECTIONS} for name in servers}
    for name, server in servers.items():
        press(server.url, 8, 1, predict=name != REFERENCE)  # warm: imports, caches, every thread's interpreter
    for number in range(rounds):
        for connections in CONNECTIONS:
            for name, server in servers.items():
                say(f"round {number + 1}, {connections} connections, {name}")
                loads[name][connections].append(press(server.url, connections, seconds, predict=name != REFERENCE))
    return {
        name: {
            connections: {
                **asdict(middle(runs)),
                "ratio": median(
                    ours.per_s / reference.per_s
                    for ours, reference in zip(runs, loads[REFERENCE][connections], strict=True)
                ),
            }
            for connections, runs in by_connections.items()
        }
        for name, by_connections in loads.items()
    }


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<36}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


if __name__ == "__main__":
    main()
