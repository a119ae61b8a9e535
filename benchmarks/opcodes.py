"""Interpreter instructions of a predict, by function: how much Python there is, whatever machine runs it.

    python -m benchmarks.opcodes [--page docs/profile.md]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import click

from benchmarks.bundle import sensor_repository
from benchmarks.in_process import in_process
from benchmarks.load import BenchmarkFailed
from benchmarks.sections import write_section

PREDICTS = 400
SHOWN = 15
ROOT = Path(__file__).parent.parent

SECTION = """
### Interpreter instructions, by function

    python -m benchmarks.opcodes --page docs/profile.md

{total:,.0f} of them in {calls:.0f} calls make one predict; the {shown} functions with the most:

| function | instructions of a predict | calls |
| --- | ---: | ---: |
{rows}
"""


def count(models: Path, predicts: int = PREDICTS) -> tuple[Counter[str], Counter[str]]:
    """Instructions and calls by function, of so many predicts together, in the thread that answers them."""
    instructions: Counter[Any] = Counter()
    calls: Counter[Any] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "call":
            calls[frame.f_code] += 1
        elif event == "opcode":
            instructions[frame.f_code] += 1
        return trace

    with in_process(models) as asked:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            asked.predict(predicts)
        finally:
            sys.settrace(before)
    return _named(instructions), _named(calls)


def _named(by_code: Counter[Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for code, number in by_code.items():
        file = Path(code.co_filename)
        if file == Path(__file__).with_name("in_process.py") or file == Path(__file__):
            continue  # what asks
        inside = file.is_relative_to(ROOT) and ".venv" not in file.parts
        place = str(file.relative_to(ROOT)) if inside else "/".join(file.parts[-2:])
        found[f"{place}: {code.co_qualname}"] += number
    return found


@click.command(help=__doc__)
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--page", type=click.Path(path_type=Path), help="Write the table into this page of docs, too.")
def main(models_dir: Path, page: Path | None) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="recurve-opcodes-") as scratch:
            repository, _ = sensor_repository(models_dir, Path(scratch) / "models")
            instructions, calls = count(repository)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error
    total, called = sum(instructions.values()) / PREDICTS, sum(calls.values()) / PREDICTS
    click.echo(f"{total:,.0f} interpreter instructions in {called:.0f} calls")
    for name, number in instructions.most_common(SHOWN):
        click.echo(f"{number / PREDICTS:>8.1f} {calls[name] / PREDICTS:>6.1f}  {name}")
    if page is not None:
        rows = "\n".join(
            f"| `{name}` | {number / PREDICTS:,.0f} | {calls[name] / PREDICTS:.1f} |"
            for name, number in instructions.most_common(SHOWN)
        )
        write_section(page, "opcodes", SECTION.format(total=total, calls=called, shown=SHOWN, rows=rows))


if __name__ == "__main__":
    main()
