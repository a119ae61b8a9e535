"""What a client's past costs: a history over HTTP, a context that is replayed, and what others notice meanwhile.

    python -m benchmarks.priming [--models-dir FOLDER] [--seconds N]

Times are held against LiteRT alone taking the same series, turn by turn: a machine's speed cancels out of the ratios.
That of the milliseconds spent on a processor (`cpu_ratio`) is the same on a busy machine as on a quiet one.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.bare import Taken, bare_series, bundle_of
from benchmarks.bundle import NAME, sensor_repository, weather
from benchmarks.load import Load, middle, press
from benchmarks.servers import Server, cpu_ms, free_port, resident_mb, running, service
from service.core.absorb import rebuild
from service.engines import open_engine

OBSERVATIONS, LONG = 10_000, 100_000
CONTEXT = 256
TURNS = 7
CONNECTIONS = 8


def measure(
    models: Path, scratch: Path, seconds: int = 3, rounds: int = 3, say: Callable[[str], None] = lambda what: None
) -> dict[str, Any]:
    """All of it as one JSON object: `history`, `rebuild`, `others` and how large the worker is after it."""
    port = free_port()
    command = service(port, 1, models, scratch / "priming")
    with running(command, port, "/readyz", scratch / "priming.log") as server:
        say(f"histories of {OBSERVATIONS:,}")
        history = measure_history(models, server)
        say(f"predicts beside histories of {LONG:,}")
        others = measure_others(server, seconds, rounds)
        (worker,) = server.workers()
        after_mb = resident_mb(worker)
    say(f"rebuilds from a context of {CONTEXT}")
    return {"history": history, "rebuild": measure_rebuild(models), "others": others, "resident_mb": after_mb}


def measure_history(models: Path, server: Server, observations: int = OBSERVATIONS) -> dict[str, float]:
    """Milliseconds from a PUT of a history to its answer, the middle one of TURNS; `bare_ms`: LiteRT's steps alone.

    Ratios are the middle ones of the turns'. The state is stored before the answer.
    """
    bundle, spec = bundle_of(models, NAME)
    series, body = weather(observations), _body(observations)
    (worker,) = server.workers()

    def ours() -> Taken:
        before = cpu_ms(worker)
        return Taken(_prime(server, "primed", body), cpu_ms(worker) - before)

    turns = [(ours(), bare_series(bundle, spec, series)) for _ in range(TURNS + 1)][1:]
    return {"observations": observations, **_summary("http_ms", turns)}


def measure_rebuild(models: Path, rows: int = CONTEXT) -> dict[str, float]:
    """Milliseconds in which a state is made anew from a context of `rows`, in this process, as above."""
    bundle, spec = bundle_of(models, NAME)
    engine, context = open_engine(bundle, spec), weather(rows)

    def ours() -> Taken:
        began, cpu_began = time.perf_counter(), time.thread_time()
        rebuild(spec, engine, context, "model_updated")
        return Taken((time.perf_counter() - began) * 1e3, (time.thread_time() - cpu_began) * 1e3)

    turns = [(ours(), bare_series(bundle, spec, context)) for _ in range(20 * TURNS)][1:]
    engine.close()
    return {"rows": rows, **_summary("rebuild_ms", turns)}


def measure_others(server: Server, seconds: int, rounds: int) -> dict[str, Any]:
    """Predicts over CONNECTIONS to one worker: alone, and while it primes clients from LONG histories without a break.

    `history_s`: how long such a history takes, `alone_s` without predicts beside it.
    """
    body = _body(LONG)
    loads: dict[str, list[Load]] = {"alone": [], "priming": []}
    alone_s = median(_prime(server, "long", body) / 1e3 for _ in range(2))
    took: list[float] = []
    for _ in range(rounds):
        loads["alone"].append(press(server.url, CONNECTIONS, seconds, predict=True))
        ended = threading.Event()

        def prime(until: threading.Event = ended) -> None:
            while not until.is_set():
                took.append(_prime(server, "long", body) / 1e3)

        primer = threading.Thread(target=prime)
        primer.start()
        try:
            loads["priming"].append(press(server.url, CONNECTIONS, seconds, predict=True))
        finally:
            ended.set()
            primer.join()
    seen: dict[str, Any] = {name: asdict(middle(runs)) for name, runs in loads.items()}
    return {"connections": CONNECTIONS, "observations": LONG, **seen, "history_s": median(took), "alone_s": alone_s}


def _summary(name: str, turns: list[tuple[Taken, Taken]]) -> dict[str, float]:
    return {
        name: median(ours.ms for ours, _ in turns),
        "cpu_ms": median(ours.cpu_ms for ours, _ in turns),
        "bare_ms": median(bare.ms for _, bare in turns),
        "bare_cpu_ms": median(bare.cpu_ms for _, bare in turns),
        "ratio": median(ours.ms / bare.ms for ours, bare in turns),
        "cpu_ratio": median(ours.cpu_ms / bare.cpu_ms for ours, bare in turns),
    }


def _body(observations: int) -> bytes:
    rows: NDArray[np.float64] = weather(observations).astype(np.float64).round(2)
    return json.dumps({"observations": rows.tolist()}).encode()


def _prime(server: Server, client: str, body: bytes) -> float:
    """Milliseconds of one PUT of a history; its connection is new, as such a caller's would be."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        began = time.perf_counter()
        connection.request("PUT", f"/v1/models/{NAME}/clients/{client}/history", body)
        answer = connection.getresponse()
        said = answer.read()
        took = (time.perf_counter() - began) * 1e3
    finally:
        connection.close()
    if answer.status != 200:
        raise click.ClickException(f"a history was answered {answer.status}: {said[:500]!r}")
    return took


@click.command(help=__doc__)
@click.option("--models-dir", default=Path("models/published"), type=click.Path(path_type=Path), show_default=True)
@click.option("--seconds", default=3, show_default=True, help="Length of each load.")
@click.option("--rounds", default=3, show_default=True, help="Loads of each kind; the median counts.")
def main(models_dir: Path, seconds: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="recurve-priming-") as scratch:
        repository, bundle = sensor_repository(models_dir, Path(scratch) / "models")
        click.echo(json.dumps({"bundle": bundle, **measure(repository, Path(scratch), seconds, rounds)}, indent=2))


if __name__ == "__main__":
    main()
