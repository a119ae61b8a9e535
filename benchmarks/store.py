"""What a store costs: read + compare-and-set of random clients, from one process and from two at once.

    python -m benchmarks.store [--url sqlite:///FOLDER] [--seconds 3] [--record-bytes 4600] [--clients 2000]

Without --url a fresh sqlite store in a temporary folder is measured.
"""

from __future__ import annotations

import json
import random
import secrets
import subprocess
import sys
import tempfile
import time

import click

from service.core.types import ClientKey
from service.stores import open_store

COLUMNS = ("processes", "operations/s", "p50 us", "p99 us", "p99.9 us", "max ms", "load p50 us", "lost races")


def drive(url: str, seconds: float, record_bytes: int, clients: int, begin: float) -> dict[str, list[float] | int]:
    """Steps random clients from epoch second `begin` on for `seconds`; each step's time in us, and races lost."""
    store = open_store(url)
    keys = [ClientKey("default", "sensor", f"client-{n}") for n in range(clients)]
    blob = secrets.token_bytes(record_bytes)
    steps: list[float] = []
    loads: list[float] = []
    races = 0
    while time.time() < begin:
        time.sleep(0.001)
    end = time.perf_counter() + seconds
    start = 0.0
    while start < end:
        key = random.choice(keys)
        nonce = secrets.token_bytes(8)
        start = time.perf_counter()
        stored = store.load(key)
        loaded = time.perf_counter()
        saved = store.save(key, None if stored is None else stored.nonce, nonce, blob)
        steps.append((time.perf_counter() - start) * 1e6)
        loads.append((loaded - start) * 1e6)
        races += not saved
    store.close()
    return {"steps": steps, "loads": loads, "races": races}


def measure(url: str, processes: int, seconds: float, record_bytes: int, clients: int) -> list[str]:
    """One line of the table: `processes` drivers of one store at once."""
    begin = time.time() + 0.5 + 0.3 * processes
    command = [sys.executable, "-m", "benchmarks.store", "--driver", f"{begin}"]
    command += ["--url", url, "--seconds", f"{seconds}", "--record-bytes", f"{record_bytes}", "--clients", f"{clients}"]
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    results = [json.loads(driver.communicate()[0]) for driver in drivers]
    steps = sorted(us for result in results for us in result["steps"])
    loads = sorted(us for result in results for us in result["loads"])

    def at(share: float) -> float:
        return steps[min(int(len(steps) * share), len(steps) - 1)]

    figures = (len(steps) / seconds, at(0.5), at(0.99), at(0.999), steps[-1] / 1000, loads[len(loads) // 2])
    return [f"{processes}", *(f"{figure:,.0f}" for figure in figures), f"{sum(result['races'] for result in results)}"]


@click.command(help=__doc__)
@click.option("--url", help="The store to measure; its clients of tenant 'default', model 'sensor' are overwritten.")
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--record-bytes", default=4600, show_default=True)
@click.option("--clients", default=2000, show_default=True)
@click.option("--driver", type=float, hidden=True, help="Drive from this epoch second on and print raw figures.")
def main(url: str | None, seconds: float, record_bytes: int, clients: int, driver: float | None) -> None:
    if driver is not None and url is not None:
        click.echo(json.dumps(drive(url, seconds, record_bytes, clients, driver)))
        return
    with tempfile.TemporaryDirectory(prefix="recurve-bench-") as folder:
        where = url or f"sqlite:///{folder}/state"
        click.echo(f"read + compare-and-set, {record_bytes:,} byte records, {clients:,} clients, {where}")
        click.echo("  ".join(COLUMNS))
        drive(where, min(seconds, 1.0), record_bytes, clients, time.time())  # so that the records exist
        for processes in (1, 2):
            line = measure(where, processes, seconds, record_bytes, clients)
            click.echo("  ".join(text.rjust(len(column)) for text, column in zip(line, COLUMNS, strict=True)))


if __name__ == "__main__":
    main()
