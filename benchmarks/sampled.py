"""Where a worker is while wrk loads it: stacks sampled by py-spy, added up by module.

    pip install py-spy                                   # anywhere on the PATH, or name it with --py-spy
    python -m benchmarks.sampled [--page docs/profile.md]

A sample counts for the innermost function of the stack, and what C code takes counts for the Python line that called
it. Only the worker's main thread is counted, where the event loop answers short requests; the loop's own work and its
waiting count for gunicorn, whose worker runs it. Tracing another process may need root.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path

import click

from benchmarks.bundle import sensor_repository
from benchmarks.load import BenchmarkFailed, find_wrk, press
from benchmarks.sections import write_section
from benchmarks.servers import free_port, running, service

CONNECTIONS = 8
RATE_HZ = 500
SHOWN = 20
MAIN = "MainThread"

SECTION = """
### Samples, by module

    python -m benchmarks.sampled --page docs/profile.md      # py-spy, {seconds} s, 8 connections to one worker

A sample counts for the innermost Python function; what C code takes (sqlite, LiteRT, orjson, the kernel) counts for the
line that called it. Of the worker's main thread, where the event loop answers; `gunicorn` is the loop itself, its
system calls and its waiting.

| module | share of {samples:,} samples |
| --- | ---: |
{rows}
"""


def by_module(raw: str) -> Counter[str]:
    """py-spy's raw format (`thread;a (file:line);b (file:line) count` a line) -> the main thread's samples by the
    innermost frame's file."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if count.isdigit() and MAIN in stack.partition(";")[0]:
            frame = stack.rpartition(";")[2]
            found[_module(frame)] += int(count)
    return found


def _module(frame: str) -> str:
    place = frame[frame.rfind("(") + 1 : -1].rpartition(":")[0] if frame.endswith(")") else frame
    for root in ("service/", "models/"):
        if place.startswith(root) or (f"/{root}" in place and "site-packages" not in place):
            return root + place.rpartition(root)[2]
    if "site-packages/" in place:
        return place.rpartition("site-packages/")[2].split("/")[0]
    return "python: " + "/".join(place.split("/")[-2:])


def measure(models: Path, scratch: Path, spy: str, seconds: int) -> Counter[str]:
    """Samples of one worker under load by module. BenchmarkFailed if py-spy could not take them."""
    port, raw = free_port(), scratch / "stacks"
    with running(service(port, 1, models, scratch / "state"), port, "/readyz", scratch / "log") as server:
        press(server.url, CONNECTIONS, 2, predict=True)
        load = threading.Thread(target=press, args=(server.url, CONNECTIONS, seconds + 4), kwargs={"predict": True})
        load.start()
        command = [spy, "record", "--pid", str(server.workers()[0]), "--duration", str(seconds), "--rate", str(RATE_HZ)]
        command += ["--format", "raw", "--threads", "--full-filenames", "--output", str(raw)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        load.join()
    if done.returncode or not raw.exists():
        raise BenchmarkFailed(f"py-spy failed (it may need root, or ptrace to be allowed): {done.stderr[-1000:]}")
    return by_module(raw.read_text())


@click.command(help=__doc__)
@click.option("--seconds", default=10, show_default=True)
@click.option("--py-spy", "spy", default="py-spy", show_default=True)
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--page", type=click.Path(path_type=Path), help="Write the table into this page of docs, too.")
def main(seconds: int, spy: str, models_dir: Path, page: Path | None) -> None:
    try:
        find_wrk()
        found_spy = shutil.which(spy)
        if found_spy is None:
            raise BenchmarkFailed(f"{spy} is not there: pip install py-spy, anywhere, or name it with --py-spy")
        with tempfile.TemporaryDirectory(prefix="recurve-sampled-") as scratch:
            repository, _ = sensor_repository(models_dir, Path(scratch) / "models")
            found = measure(repository, Path(scratch), found_spy, seconds)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from error
    total = sum(found.values())
    for name, number in found.most_common(SHOWN):
        click.echo(f"{number / total:>6.1%}  {name}")
    if page is not None:
        rows = "\n".join(f"| `{name}` | {number / total:.1%} |" for name, number in found.most_common(SHOWN))
        write_section(page, "samples", SECTION.format(seconds=seconds, samples=total, rows=rows))


if __name__ == "__main__":
    main()
