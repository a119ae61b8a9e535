"""`make million`: a sqlite store of a million clients beside one of a thousand, the same service over both.

Says first how much room it needs, fills the stores with real records, then asks random clients of the one and of the
other in turn; lists all clients, and lets a sweep go through them. Everything is deleted in the end.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import crowd, million_page
from benchmarks.bundle import NAME, sensor_repository
from benchmarks.load import BenchmarkFailed, Load, find_wrk, middle, press_crowd
from benchmarks.machine import machine
from benchmarks.sections import write_section
from benchmarks.servers import Server, free_port, running, service

FEW = 1_000
CONNECTIONS = (1, 8)
SPARE = 2 * 2**30  # bytes beside the store: logs, and what others write meanwhile
PAGE = 1_000
NEW = 300
SWEEP_WITHIN_S = 3_600.0

Say = Callable[[str], None]


@click.command(help=__doc__)
@click.option("--clients", default=1_000_000, show_default=True)
@click.option("--seconds", default=5, show_default=True, help="Length of each load.")
@click.option("--rounds", default=5, show_default=True, help="Loads of each kind; the median counts.")
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--folder", default=Path("build/million"), type=click.Path(path_type=Path), show_default=True)
@click.option("--page", "markdown", type=click.Path(path_type=Path), help="Write the figures into this page of docs.")
def main(clients: int, seconds: int, rounds: int, models_dir: Path, folder: Path, markdown: Path | None) -> None:
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description:<44}"), BarColumn(), TimeRemainingColumn())
    try:
        find_wrk()
        with (
            tempfile.TemporaryDirectory(prefix="run-", dir=folder) as scratch,
            Progress(*columns, console=console, transient=True) as progress,
        ):
            seen = measure(Path(scratch), models_dir, clients, seconds, rounds, progress)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error
    console.print_json(json.dumps(seen))
    if markdown is not None:
        write_section(markdown, million_page.NAME, million_page.section(seen))
        console.print(f"written to {markdown}")


def measure(scratch: Path, models: Path, clients: int, seconds: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """Every figure as one JSON object. BenchmarkFailed if there is no room, or an answer was not 2xx."""
    repository, bundle = sensor_repository(models, scratch / "models")
    few, many, now, expired = scratch / "few", scratch / "many", time.time(), clients // 100
    records = crowd.templates(repository)
    task = progress.add_task("a thousand clients", total=2 * (FEW + clients))

    def advance(more: int) -> None:
        progress.update(task, advance=more)

    def say(what: str) -> None:
        progress.update(task, description=what)

    crowd.fill(few, records, FEW, now, 0, advance)
    need_room(scratch, crowd.size(few) / FEW * clients + SPARE, progress.console)
    say(f"{clients:,} clients")
    began = time.perf_counter()
    crowd.fill(many, records, clients, now, expired, advance)
    seen: dict[str, Any] = {"machine": machine(), "bundle": bundle, "clients": clients, "few": FEW, "expired": expired}
    seen |= {"seconds": seconds, "rounds": rounds, "fill_s": time.perf_counter() - began}
    seen |= {"record_bytes": crowd.record_bytes(records[0].grown), "bytes_per_client": crowd.size(many) / clients}
    with ExitStack() as stack:
        servers = {n: stack.enter_context(serve(repository, f)) for n, f in ((FEW, few), (clients, many))}
        seen["load"] = press_in_turn(servers, seconds, rounds, say)
        say("new clients")
        seen["new_ms"] = {n: percentiles(new_clients(server)) for n, server in servers.items()}
        say("a list of all clients")
        seen["list"] = list_all(servers[clients])
        say("reads from the disk")
        crowd.forget_pages(many)
        seen["from_disk"] = asdict(press_crowd(servers[clients].url, clients, 8, seconds, seed=99))
    crowd.remember_pages(many)
    (scratch.parent / "before-the-sweep.json").write_text(json.dumps(seen, indent=2) + "\n")
    with serve(repository, many, "--sweep-s", "20") as server:
        say("a sweep")
        seen["sweep"] = sweep(server, clients, seconds)
    return seen


def need_room(folder: Path, needed: float, console: Console) -> None:
    """Says how much is needed; BenchmarkFailed if there is less."""
    free = shutil.disk_usage(folder).free
    console.print(f"needs about {needed / 1e9:.1f} GB in {folder.parent.absolute()}; {free / 1e9:.1f} GB are free")
    if free < needed:
        raise BenchmarkFailed("that is not enough room; name another --folder, or fewer --clients")


@contextmanager
def serve(models: Path, state: Path, *more: str) -> Iterator[Server]:
    """The service with two workers over the store in `state`; it does not sweep unless `more` says so."""
    port = free_port()
    command = [*service(port, 2, models, state), "--max-clients", "10000000", *(more or ("--sweep-s", "86400"))]
    with running(command, port, "/readyz", state.with_suffix(".log")) as server:
        yield server


def press_in_turn(servers: dict[int, Server], seconds: int, rounds: int, say: Say) -> list[dict[str, Any]]:
    """For each number of connections and clients the medians over `rounds`, and the ratios of many to few."""
    loads: dict[tuple[int, int], list[Load]] = {(c, n): [] for c in CONNECTIONS for n in servers}
    for clients, server in servers.items():
        say(f"{clients:,} clients, warming up")
        press_crowd(server.url, clients, 8, seconds, seed=0)
    for number in range(rounds):
        for connections, clients in loads:
            say(f"round {number + 1}, {connections} connections, {clients:,} clients")
            url = servers[clients].url
            loads[connections, clients].append(press_crowd(url, clients, connections, seconds, seed=number + 1))
    few, many = servers
    found = []
    for connections, clients in loads:
        pairs = list(zip(loads[connections, few], loads[connections, many], strict=True))
        ratios = {
            "p50_ratio": median(b.p50_ms / a.p50_ms for a, b in pairs),
            "p99_ratio": median(b.p99_ms / a.p99_ms for a, b in pairs),
        }
        figures = asdict(middle(loads[connections, clients]))
        found.append({"connections": connections, "clients": clients, **figures, **(ratios if clients == many else {})})
    return found


def new_clients(server: Server) -> list[float]:
    """Milliseconds of the first predict of clients that are not there yet, one after the other."""
    body = json.dumps({"observation": [12.0, 3.0, 1013.0]}).encode()
    return [ask(server, "POST", f"/v1/models/{NAME}/clients/new-{time.time_ns()}/predict", body)[0] for _ in range(NEW)]


def list_all(server: Server) -> dict[str, float]:
    """All clients of the model, page by page."""
    took, cursor, clients, began = [], "", 0, time.perf_counter()
    while cursor is not None:
        query = f"?limit={PAGE}" + (f"&after={cursor}" if cursor else "")
        ms, answer = ask(server, "GET", f"/v1/models/{NAME}/clients{query}")
        page = json.loads(answer)
        took.append(ms)
        clients += len(page["clients"])
        cursor = page["next"]
    return {"clients": clients, "seconds": time.perf_counter() - began, **percentiles(took)}


def sweep(server: Server, clients: int, seconds: int) -> dict[str, Any]:
    """Waits for one sweep through the whole store, predicts under way meanwhile."""

    def metric(name: str) -> float:
        text = ask(server, "GET", "/metrics")[1].decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def wait(condition: Callable[[], bool]) -> None:
        while not condition():
            if time.perf_counter() - began > SWEEP_WITHIN_S:
                raise BenchmarkFailed(f"no sweep ended within {SWEEP_WITHIN_S:g} s")
            time.sleep(0.2)

    began = time.perf_counter()
    wait(lambda: metric("recurve_sweep_lease") > 0)
    began = time.perf_counter()
    load = press_crowd(server.url, clients, 8, seconds, seed=7)
    wait(lambda: metric("recurve_sweeps_total") > 0)
    return {"seconds": time.perf_counter() - began, "swept": metric("recurve_swept_clients_total"), **asdict(load)}


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[float, bytes]:
    """Milliseconds and the body of one answer; BenchmarkFailed if it is not 200."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        began = time.perf_counter()
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise BenchmarkFailed(f"{method} {path}: {answer.status} {content!r}")
        return (time.perf_counter() - began) * 1e3, content


def percentiles(ms: list[float]) -> dict[str, float]:
    """The median, the 99th percentile and the largest."""
    rising = sorted(ms)
    return {"p50_ms": median(rising), "p99_ms": rising[int(len(rising) * 0.99)], "max_ms": rising[-1]}


if __name__ == "__main__":
    main()
