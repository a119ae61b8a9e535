"""What is wanted of a run's figures, and whether it was reached: computed from the figures, never said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """One figure's bound: `more` of it is better, or less if not. `aim`: what would be better still."""

    name: str
    of: Callable[[dict[str, Any]], float]
    bound: float
    aim: float | None
    more: bool
    unit: str

    def reached(self, figure: float) -> bool:
        """Whether `figure` is within the bound; the bound itself is."""
        return figure >= self.bound if self.more else figure <= self.bound

    def words(self) -> str:
        """The bound, and the aim."""
        text = f"{'at least' if self.more else 'at most'} {amount(self.bound, self.unit)}"
        return text if self.aim is None else f"{text}; aim {amount(self.aim, self.unit)}"


def amount(figure: float, unit: str) -> str:
    """`figure` with its unit, as exact as it is worth."""
    number = f"{figure:,.0f}" if figure >= 1000 else f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"
    return f"{number} {unit}".rstrip()


def _tail(workers: str) -> Callable[[dict[str, Any]], float]:
    def of(seen: dict[str, Any]) -> float:
        at = seen["load"][workers][8]
        return float(at["p99_ms"] / at["p50_ms"])

    return of


def _largest_mb(seen: dict[str, Any]) -> float:
    ours = (worker for name, each in seen["workers"].items() if name != "empty" for worker in each)
    return max(float(worker["resident_mb"]) for worker in ours)


ONE, TWO, GRANIAN = "one worker", "two workers", "one worker under granian"
WANTED = (
    Wanted(f"{ONE}, 8 connections, of empty", lambda seen: seen["load"][ONE][8]["ratio"], 1.8, 2.0, True, ""),
    Wanted(f"{TWO}, 8 connections, of empty", lambda seen: seen["load"][TWO][8]["ratio"], 3.0, 3.3, True, ""),
    Wanted(f"{GRANIAN}, 8 connections, of empty", lambda seen: seen["load"][GRANIAN][8]["ratio"], 3.0, None, True, ""),
    Wanted(f"{ONE}, 8 connections, p99 over p50", _tail(ONE), 4.0, None, False, ""),
    Wanted(f"{TWO}, 8 connections, p99 over p50", _tail(TWO), 4.0, None, False, ""),
    Wanted(f"bulk, {ONE}", lambda seen: seen["bulk"][ONE]["steps_per_s"], 60_000, 100_000, True, "steps/s"),
    Wanted(
        f"bulk, {TWO}, of one's",
        lambda seen: seen["bulk"][TWO]["steps_per_s"] / seen["bulk"][ONE]["steps_per_s"], 1.0, None, True, "",
    ),
    Wanted("history of 10,000", lambda seen: seen["priming"]["history"]["http_ms"], 150, None, False, "ms"),
    Wanted("rebuild of 256", lambda seen: seen["priming"]["rebuild"]["rebuild_ms"], 3, None, False, "ms"),
    Wanted("engine step, one client", lambda seen: seen["engine"][1]["step_us"], 15, None, False, "us"),
    Wanted("engine step, 32 clients, of bare LiteRT", lambda seen: seen["engine"][32]["ratio"], 1.5, None, False, ""),
    Wanted("engine step, 256 clients, of bare LiteRT", lambda seen: seen["engine"][256]["ratio"], 1.5, None, False, ""),
    Wanted("start to ready, two models", lambda seen: seen["ready_s"], 1.5, None, False, "s"),
    Wanted("memory of the largest worker", _largest_mb, 120, None, False, "MB"),
)  # fmt: skip


def verdicts(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """For each of WANTED: its name, this run's figure, what is wanted in words, and `verdict`: reached or missed.

    What is wanted of granian is left out where it was not measured.
    """
    found = []
    for each in WANTED:
        if each.name.startswith(GRANIAN) and GRANIAN not in seen["load"]:
            continue
        figure = each.of(seen)
        verdict = "reached" if each.reached(figure) else "missed"
        told = {"name": each.name, "figure": figure, "unit": each.unit, "wanted": each.words()}
        found.append(told | {"verdict": verdict})
    return found
