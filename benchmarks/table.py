"""A run's figures as tables for a person."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import bulk
from benchmarks.wanted import GRANIAN, amount

BUSY = 0.5  # a load average before the run above which its figures say little


def show(console: Console, seen: dict[str, Any]) -> None:
    """Print what was `seen`, and what was reached of what is wanted."""
    machine = seen["machine"]
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, gunicorn {machine['gunicorn']}; "
        f"bundle: {seen['bundle']}"
    )
    if machine["load_before"] > BUSY:
        console.print(f"[yellow]The machine was busy (load {machine['load_before']}): measure again on a quiet one.")
    console.print(_requests(seen["load"]))
    if GRANIAN not in seen["load"]:
        console.print("granian is not installed here, and so was not measured (requirements/granian.txt)")
    console.print(_processes(seen))
    console.print(_parts(seen))
    bulk.show(console, seen["bulk"])
    console.print(_wanted(seen["wanted"]))


def _wanted(verdicts: list[dict[str, Any]]) -> Table:
    table = Table(title="What is wanted")
    for heading in ("figure", "this run", "wanted", ""):
        table.add_column(heading)
    for each in verdicts:
        style = None if each["verdict"] == "reached" else "bold red"
        table.add_row(each["name"], amount(each["figure"], each["unit"]), each["wanted"], each["verdict"], style=style)
    return table


def _requests(load: dict[str, dict[int, dict[str, float]]]) -> Table:
    table = Table(title="Requests, connections kept alive")
    table.add_column("connections", justify="right")
    table.add_column("server")
    for heading in ("requests/s", "p50 ms", "p99 ms", "of empty"):
        table.add_column(heading, justify="right")
    for connections in next(iter(load.values())):
        for name, figures in load.items():
            at = figures[connections]
            row = (f"{at['per_s']:,.0f}", f"{at['p50_ms']:.2f}", f"{at['p99_ms']:.2f}", f"{at['ratio']:.2f}")
            table.add_row(str(connections), name if name == "empty" else f"predict, {name}", *row)
        table.add_section()
    return table


def _processes(seen: dict[str, Any]) -> Table:
    table = Table(title=f"Processes (from start to ready: {seen['ready_s']:.2f} s)")
    table.add_column("server")
    table.add_column("resident MB of each worker", justify="right")
    table.add_column("TensorFlow loaded")
    for name, workers in seen["workers"].items():
        memory = ", ".join(f"{worker['resident_mb']:.0f}" for worker in workers)
        table.add_row(name, memory, "yes" if any(worker["tensorflow"] for worker in workers) else "no")
    return table


def _parts(seen: dict[str, Any]) -> Table:
    table = Table(title="Parts")
    table.add_column("part")
    table.add_column("microseconds (median)", justify="right")
    for batch, at in seen["engine"].items():
        table.add_row(f"engine step, LiteRT, batch {batch}", f"{at['step_us']:,.1f} ({at['ratio']:.2f} of bare)")
    table.add_row("bulk, a client's step: the libraries alone", f"{seen['bulk_bare']['all']:,.1f}")
    for name, key, ms in (("history", "observations", "http_ms"), ("rebuild", "rows", "rebuild_ms")):
        at = seen["priming"][name]
        table.add_row(f"{name} of {at[key]:,}", f"{at[ms] * 1e3:,.0f} ({at['ratio']:.2f} of bare)")
    others = seen["priming"]["others"]
    for name in ("alone", "priming"):
        table.add_row(f"p99 of predicts, 8 connections, {name}", f"{others[name]['p99_ms'] * 1e3:,.0f}")
    for line in seen["store"]:
        table.add_row(f"store: load + save of 4.6 kB, sqlite, {line[0]} process(es)", f"{line[2]} (p99 {line[3]})")
    return table
