"""`make bench-compare`: a run beside a saved one, so that what became slower is seen.

Requests are compared by their ratio to the empty endpoint of the same run, engine steps and series by theirs to bare
LiteRT, which leaves the machine's mood out of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

BOUND = 0.15  # of a figure, beyond which it is slower rather than noisy


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both runs. `more` is better, or less if not; `counts`: it decides, as it is relative to its run."""

    name: str
    before: float
    after: float
    more: bool
    counts: bool

    @property
    def worse(self) -> float:
        """By which share it became worse; below 0 if it became better."""
        return 1 - self.after / self.before if self.more else self.after / self.before - 1


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Every figure that both runs have."""
    found = []
    for server, by_connections in before["load"].items():
        for connections, old in by_connections.items():
            new = after["load"].get(server, {}).get(connections)
            if new is None or server == "empty":
                continue
            name = f"predict, {server}, {connections} connections"
            found.append(Change(f"{name}: of empty", old["ratio"], new["ratio"], more=True, counts=True))
            tail = old["p99_ms"] / old["p50_ms"], new["p99_ms"] / new["p50_ms"]
            found.append(Change(f"{name}: p99 over p50", *tail, more=False, counts=False))
    found.append(Change("start to ready, s", before["ready_s"], after["ready_s"], more=False, counts=False))
    for where in _PARTS:
        old, new = _at(before, where.path), _at(after, where.path)
        if old is not None and new is not None:
            found.append(Change(where.name, old, new, where.more, where.counts))
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a figure lies in a run; the rest is as in Change."""

    name: str
    path: tuple[str, ...]
    more: bool
    counts: bool


_PARTS = [
    *(
        part
        for server in ("one worker", "two workers")
        for part in (
            _Part(f"bulk, {server}: steps for each request of empty", ("bulk", server, "of_empty"), True, True),
            _Part(f"bulk, {server}: processor us of a step", ("bulk", server, "processor_us"), False, False),
        )
    ),
    *(
        part
        for batch in ("1", "32", "256")
        for part in (
            _Part(f"engine step, batch {batch}: of bare LiteRT", ("engine", batch, "ratio"), False, True),
            _Part(f"engine step, batch {batch}, us", ("engine", batch, "step_us"), False, False),
        )
    ),
    _Part("history: processor time of bare LiteRT's", ("priming", "history", "cpu_ratio"), False, True),
    _Part("history, ms", ("priming", "history", "http_ms"), False, False),
    _Part("rebuild: processor time of bare LiteRT's", ("priming", "rebuild", "cpu_ratio"), False, True),
    _Part("rebuild, ms", ("priming", "rebuild", "rebuild_ms"), False, False),
    _Part("predicts beside histories: p99, ms", ("priming", "others", "priming", "p99_ms"), False, False),
]


def _at(run: dict[str, Any], path: tuple[str, ...]) -> float | None:
    found: Any = run
    for name in path:
        if name not in found:
            return None  # a run of an earlier benchmark
        found = found[name]
    return float(found)


def show(console: Console, found: list[Change], bound: float) -> None:
    """Print both runs side by side."""
    table = Table(title="Before and after")
    table.add_column("figure")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for each in found:
        style = "bold red" if each.counts and each.worse > bound else None if each.counts else "dim"
        change = f"{each.after / each.before - 1:+.0%}"
        table.add_row(each.name, f"{each.before:.3g}", f"{each.after:.3g}", change, style=style)
    console.print(table)


@click.command(help=__doc__, context_settings={"show_default": True})
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--bound", default=BOUND, type=click.FloatRange(0, 1), help="The share beyond which it fails.")
def main(before: Path, after: Path, bound: float) -> None:
    console = Console()
    runs = []
    for path in (before, after):
        try:
            runs.append(json.loads(path.read_text(encoding="utf-8")))
            found = changes(runs[0], runs[-1])
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise click.ClickException(f"{path} is no run that `make bench` wrote ({error!r})") from error
    show(console, found, bound)
    slower = [each for each in found if each.counts and each.worse > bound]
    if slower:
        names = "; ".join(f"{each.name} by {each.worse:.0%}" for each in slower)
        raise click.ClickException(f"slower by more than {bound:.0%}: {names}")
    console.print(f"nothing is slower by more than {bound:.0%} (dim figures depend on the machine and do not count)")


if __name__ == "__main__":
    main()
