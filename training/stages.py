"""The stages of a command on the terminal: a bar for each, how long each took, and the scores as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from training.evaluate import Evaluation
from training.interruption import INTERRUPTION
from training.metrics import shown
from training.references import title

Advance = Callable[[float], None]


class Stages:
    """Runs the stages of a command one after another within ``with stages.bars:``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=console)

    @contextmanager
    def stage(self, name: str, *, bar: bool = True) -> Iterator[Advance]:
        """Time and show one stage; the block is given what to call with the share done, 0 to 1."""
        task = self.bars.add_task(name, total=1.0 if bar else None)

        def advance(share: float) -> None:
            INTERRUPTION.check()
            self.bars.update(task, completed=share)

        with self.timed(name):
            yield advance
        self.bars.update(task, total=1.0, completed=1.0)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a stage that shows itself. KeyboardInterrupt before and after it if a stop was asked for."""
        INTERRUPTION.check()
        began = time.monotonic()
        yield
        INTERRUPTION.check()
        self.seconds[name] = time.monotonic() - began

    def say(self, text: str) -> None:
        """A remark under the stage that is running."""
        self.console.print(f"  {text}", style="dim", highlight=False, soft_wrap=True)

    def print_seconds(self) -> None:
        """How long each stage took."""
        parts = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
        self.console.print(f"{parts}; {sum(self.seconds.values()):.0f} s in all", style="dim", highlight=False)


def print_scores(console: Console, evaluation: Evaluation) -> None:
    """The verdict, every gate, and each target's errors beside the baselines'."""
    scores = evaluation.scores
    for name, target in scores["targets"].items():
        qlike = target["loss"] == "qlike"
        console.print(f"\n{name}, one step ahead, {scores['part']}:", style="bold", highlight=False, soft_wrap=True)
        table = Table()
        table.add_column("forecaster")
        for column in [*(["QLIKE"] if qlike else []), f"RMSE, {target['unit']}", f"MAE, {target['unit']}", "skill"]:
            table.add_column(column, justify="right")
        for who, found in sorted(target["one_step"].items(), key=lambda item: float(item[1][target["loss"]])):
            figures = [*([f"{found['qlike']:.4f}"] if qlike else []), shown(found["rmse"]), shown(found["mae"])]
            skill = f"{target['skill'][who]:+.1%}" if who in target["skill"] else ""
            table.add_row(title(who), *figures, skill, style="bold" if who == "model" else None)
        console.print(table)
        console.print(f"{scores['level']:.0%} interval holds {target['coverage']:.1%} of the truths", highlight=False)
    console.print()
    for check in evaluation.checks:
        mark, style = ("✓", "green") if check.passed else ("✗", "bold red")
        console.print(f"{mark} {check.text}", style=style, highlight=False, soft_wrap=True)
    if not any(check.text == evaluation.verdict.text for check in evaluation.checks):
        console.print(evaluation.verdict.text, highlight=False, soft_wrap=True)
