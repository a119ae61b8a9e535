"""`make instructions`: machine instructions of a predict, counted by callgrind, which no other process disturbs.

Two runs of the service in one process that differ in their number of predicts; what they differ in, divided, is one
predict of the main thread: the bytes of a request in, the bytes of an answer out, saved in sqlite between. Kernel time
is not in it. Needs valgrind; two or three minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from benchmarks.bundle import sensor_repository
from benchmarks.load import BenchmarkFailed
from benchmarks.sections import write_section

FEW, MANY = 10, 410
WITHIN_S = 900
OTHERS = 0.005  # of all: libraries below it are one line
NAMES = {  # what a library's file begins with -> what it is called here
    "libpython": "python", "python": "python", "_multiarray_umath": "numpy", "libpywrap_litert": "LiteRT",
    "_pywrap_tensorflow": "LiteRT", "libsqlite3": "sqlite", "_sqlite3": "sqlite", "libz": "zlib", "zlib": "zlib",
    "orjson": "orjson", "libc.so": "libc", "libc-": "libc", "ld-linux": "libc", "libm": "libc", "libpthread": "libc",
    "_pydantic_core": "pydantic", "parser": "httptools", "libcrypto": "openssl", "_struct": "python's modules",
    "_asyncio": "python's modules", "_datetime": "python's modules", "_json": "python's modules",
    "_blake2": "python's modules", "_random": "python's modules", "math": "python's modules",
}  # fmt: skip
_OBJECT = re.compile(r"(c?ob)=\((\d+)\)(.*)")
_COSTS = set("0123456789+-*")

SECTION = """
### Instructions, by library

    make instructions ARGS="--page docs/profile.md"      # callgrind, {few} and {many} predicts; needs valgrind

| library | instructions of a predict | share |
| --- | ---: | ---: |
{rows}
"""


def counted(lines: Iterable[str]) -> Counter[str]:
    """A file that callgrind wrote -> instructions by library: each function's own, those that it calls left out.

    See "Callgrind Format Specification" in valgrind's manual: `ob=` names the file that the costs below it are of.
    callgrind_annotate would lose that for inlined functions.
    """
    found: Counter[str] = Counter()
    names: dict[str, str] = {}
    library, inclusive = "", False
    for line in lines:
        if match := _OBJECT.match(line):
            number, name = match[2], match[3].strip()
            if name:
                names[number] = name
            if match[1] == "ob":
                library = library_name(names[number])
        elif line.startswith("calls="):
            inclusive = True  # the next line is what the called function took
        elif line[:1] in _COSTS:
            if not inclusive:
                found[library] += int(line.split()[1])
            inclusive = False
    return found


def library_name(file: str) -> str:
    """A library's file -> what it is called here; its own name if it is none of NAMES."""
    name = Path(file).name
    return next((called for begin, called in NAMES.items() if name.startswith(begin)), name)


def each_predict(few: Counter[str], many: Counter[str], predicts: int) -> dict[str, float]:
    """Instructions of one predict by library, most first; small ones are one line."""
    found = {name: (many[name] - few[name]) / predicts for name in many}
    bound = OTHERS * sum(found.values())
    told = {name: number for name, number in sorted(found.items(), key=lambda one: -one[1]) if number > bound}
    rest = sum(found.values()) - sum(told.values())
    return {**told, "others": rest}


def section(found: dict[str, float]) -> str:
    """The table for docs of instructions by library."""
    total = sum(found.values())
    rows = [f"| {name} | {number:,.0f} | {number / total:.1%} |" for name, number in found.items()]
    return SECTION.format(few=FEW, many=MANY, rows="\n".join([*rows, f"| all | {total:,.0f} | |"]))


def measure(models: Path, scratch: Path) -> dict[str, float]:
    """Instructions of one predict by library. BenchmarkFailed if valgrind is missing or a run failed."""
    if shutil.which("valgrind") is None:
        raise BenchmarkFailed("valgrind, which counts instructions, is not installed: apt-get install valgrind")
    runs = {predicts: _start(models, scratch, predicts) for predicts in (FEW, MANY)}
    try:
        for predicts, run in runs.items():
            if run.wait(WITHIN_S):
                said = (scratch / f"{predicts}.log").read_text(errors="replace")
                raise BenchmarkFailed(f"the run of {predicts} predicts failed:\n{said[-2000:]}")
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"callgrind took more than {WITHIN_S} s") from error
    finally:
        for run in runs.values():
            if run.poll() is None:
                run.kill()
                run.wait()
    few, many = (_read(scratch / f"{predicts}.out-01") for predicts in (FEW, MANY))  # 01: the main thread
    return each_predict(few, many, MANY - FEW)


def _start(models: Path, scratch: Path, predicts: int) -> subprocess.Popen[bytes]:
    command = ["valgrind", "--tool=callgrind", "--separate-threads=yes"]
    command += [f"--callgrind-out-file={scratch / f'{predicts}.out'}"]
    command += [sys.executable, "-m", "benchmarks.in_process", str(models), str(predicts)]
    with (scratch / f"{predicts}.log").open("wb") as log:
        return subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": "1"}, stdout=log, stderr=log)


def _read(file: Path) -> Counter[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return counted(lines)


@click.command(help=__doc__)
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--output", default=Path("build/instructions.json"), type=click.Path(path_type=Path), show_default=True)
@click.option("--page", type=click.Path(path_type=Path), help="Write the table into this page of docs, too.")
def main(models_dir: Path, output: Path, page: Path | None) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="recurve-instructions-") as scratch:
            repository, bundle = sensor_repository(models_dir, Path(scratch) / "models")
            click.echo(f"{bundle}; two runs under callgrind, two or three minutes")
            found = measure(repository.absolute(), Path(scratch))
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error
    total = sum(found.values())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"bundle": bundle, "total": total, "by_library": found}, indent=1) + "\n")
    for name, number in [*found.items(), ("all", total)]:
        click.echo(f"{name:20} {number:>10,.0f}  {number / total:>6.1%}")
    if page is not None:
        write_section(page, "instructions", section(found))


if __name__ == "__main__":
    main()
