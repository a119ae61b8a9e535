"""Many clients in one request: client-steps a second of one and of two workers, every record saved before its answer.

    python -m benchmarks.bulk

Metrics and logs are on and the store is sqlite, as in `make bench`, of which this is a part. The load generator shares
the machine; what a step costs the service is told in processor time, too, which hardly depends on that.
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.bundle import NAME, sensor_repository
from benchmarks.load import BenchmarkFailed, Load, press, wrk
from benchmarks.servers import Server, empty_endpoint, free_port, processor_s, running, service

PATH = f"/v1/models/{NAME}/predict"
CLIENTS = 256  # in one request
CONNECTIONS = 4
WARM_S = 10  # at the least: until records have all that they ever hold


def measure(
    repository: Path, scratch: Path, seconds: int, rounds: int, say: Callable[[str], None] = lambda what: None
) -> dict[str, dict[str, float]]:
    """Server -> client-steps a second, latencies of a request and processor time of a step, medians over the rounds.

    `of_empty`: steps for each request that the empty endpoint answers over 8 connections. It and the servers with one
    and with two workers run side by side and are asked in turn. BenchmarkFailed if any answer was not 200, or any item
    in one was not absorbed.
    """
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, workers in (("one worker", 1), ("two workers", 2)):
            port, folder = free_port(), scratch / f"bulk-{workers}"
            command = service(port, workers, repository, folder)
            servers[name] = stack.enter_context(running(command, port, "/readyz", scratch / f"bulk-{workers}.log"))
        port = free_port()
        empty = stack.enter_context(running(empty_endpoint(port), port, "/", scratch / "bulk-empty.log"))
        for name, server in servers.items():
            say(f"bulk, {name}, warming up")
            press_bulk(server.url, WARM_S)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for number in range(rounds):
            reference = press(empty.url, 8, 1, predict=False)
            for name, server in servers.items():
                say(f"bulk, round {number + 1}, {name}")
                before, absorbed = processor_s(server), observations(server)
                load = press_bulk(server.url, seconds)
                time.sleep(1)  # counts of the other worker are settled every half second
                steps = observations(server) - absorbed
                if steps < 0.99 * load.per_s * seconds * CLIENTS:
                    raise BenchmarkFailed(f"{name}: {steps} steps were absorbed of {load.per_s * seconds * CLIENTS}")
                runs[name].append(
                    {
                        "steps_per_s": load.per_s * CLIENTS,
                        "of_empty": load.per_s * CLIENTS / reference.per_s,
                        "p50_ms": load.p50_ms,
                        "p99_ms": load.p99_ms,
                        "processor_us": (processor_s(server) - before) / steps * 1e6,
                    }
                )
        return {name: {key: median(run[key] for run in each) for key in each[0]} for name, each in runs.items()}


def press_bulk(url: str, seconds: int) -> Load:
    """Bulk requests over CONNECTIONS connections for `seconds`; BenchmarkFailed if any answer was not 2xx."""
    sizes = {"BENCH_CONNECTIONS": str(CONNECTIONS), "BENCH_CLIENTS": str(CLIENTS)}
    return wrk(url, "bulk.lua", CONNECTIONS, seconds, {"BENCH_PATH": PATH} | sizes)


def observations(server: Server) -> float:
    """Observations that the server has absorbed, by its own count."""
    with urllib.request.urlopen(f"{server.url}metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("recurve_observations_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def show(console: Console, seen: dict[str, dict[str, float]]) -> None:
    """Print what `measure` saw."""
    table = Table(title=f"Bulk: {CLIENTS} clients in a request, {CONNECTIONS} connections")
    table.add_column("server")
    for heading in ("client-steps/s", "p50 ms", "p99 ms", "processor us of a step"):
        table.add_column(heading, justify="right")
    for name, at in seen.items():
        figures = f"{at['steps_per_s']:,.0f}", f"{at['p50_ms']:.1f}", f"{at['p99_ms']:.1f}", f"{at['processor_us']:.1f}"
        table.add_row(name, *figures)
    console.print(table)


@click.command(help=__doc__)
@click.option("--seconds", default=4, show_default=True, help="Length of each load.")
@click.option("--rounds", default=3, show_default=True, help="Loads of each kind; the median counts.")
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
def main(seconds: int, rounds: int, models_dir: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="recurve-bench-") as scratch:
            repository, bundle = sensor_repository(models_dir, Path(scratch) / "models")
            console = Console()
            seen: dict[str, Any] = measure(repository, Path(scratch), seconds, rounds, console.print)
            console.print(bundle)
            show(console, seen)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
