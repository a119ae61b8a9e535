"""The four curves: throughput and latency against clients kept, workers, model size and replicas over one Redis.

Each curve has the empty endpoint among its servers, asked in turn with them; a point is the median of its rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import crowd, store
from benchmarks.bundle import NAME, untrained
from benchmarks.engine import beside_bare
from benchmarks.load import PREDICT, Load, press, press_crowd
from benchmarks.machine import busy_s
from benchmarks.redis_server import running_redis
from benchmarks.servers import Server, empty_endpoint, free_port, processor_s, running, service

CONNECTIONS = 8
WARM_S = 2
REFERENCE = "empty"
RECORD_BYTES = 4600

Say = Callable[[str], None]
Point = dict[str, Any]


class Asked(NamedTuple):
    """One point's servers, and a load on them: seconds and the number of the round -> what was seen."""

    servers: list[Server]
    ask: Callable[[int, int], Load]


class Pace(NamedTuple):
    """How long each load is, how many there are, and who is told of each."""

    seconds: int
    rounds: int
    say: Say


def of_clients(repository: Path, scratch: Path, sizes: list[int], pace: Pace) -> list[Point]:
    """One worker over sqlite stores of so many clients, random ones asked.

    `bytes`: what a client takes of the disk; `load_us`: microseconds in which a random one's record is read.
    """
    records, folders = crowd.templates(repository), {}
    for size in sizes:
        pace.say(f"a store of {size:,} clients")
        folders[size] = scratch / f"clients-{size}"
        crowd.fill(folders[size], records, size, time.time(), 0, lambda more: None)
    alone = {n: {"bytes": crowd.size(folder) / n, "load_us": crowd.load_us(folder, n)} for n, folder in folders.items()}
    with ExitStack() as stack:
        asked = {}
        for size, folder in folders.items():
            more = "--max-clients", "10000000", "--sweep-s", "86400"
            server = stack.enter_context(serving(repository, folder, 1, *more))

            def ask(seconds: int, number: int, url: str = server.url, clients: int = size) -> Load:
                return press_crowd(url, clients, CONNECTIONS, seconds, seed=number)

            asked[size] = Asked([server], ask)
        points = in_turn(asked, scratch, "clients", pace)
    return [point | alone[point["at"]] for point in points]


def of_workers(repository: Path, scratch: Path, pace: Pace) -> list[Point]:
    """One worker and two, over sqlite."""
    with ExitStack() as stack:
        servers = {n: stack.enter_context(serving(repository, scratch / f"workers-{n}", n)) for n in (1, 2)}
        return in_turn({n: plain(server) for n, server in servers.items()}, scratch, "workers", pace)


def of_units(scratch: Path, units: list[int], pace: Pace) -> list[Point]:
    """One worker that serves untrained models of two LSTM layers, each of so many units, over sqlite.

    `step_us`: microseconds of one engine step; `step_256_us`: of one for 256 clients.
    """
    pace.say(f"untrained models of {', '.join(str(each) for each in units)} units")
    repository = untrained(scratch / "models-by-units", {f"lstm-{each}": each for each in units})
    with serving(repository, scratch / "units", 1) as server:
        asked = {each: plain(server, PREDICT.replace(NAME, f"lstm-{each}")) for each in units}
        points = in_turn(asked, scratch, "units", pace)
    for point in points:
        pace.say(f"engine steps of {point['at']} units")
        steps = beside_bare(repository, f"lstm-{point['at']}", seconds=0.5, batches=(1, 256))
        point |= {"step_us": steps[1].step_us, "step_256_us": steps[256].step_us}
    return points


def of_replicas(repository: Path, scratch: Path, pace: Pace) -> list[Point]:
    """One service and two, each of one worker, over one Redis that syncs each write; the connections are shared out.

    `store_us`: microseconds of a load and a save in that Redis, one process alone.
    """
    with ExitStack() as stack:
        url = stack.enter_context(running_redis(scratch / "redis"))
        pace.say("the store over Redis")
        trip = store.measure(url, 1, pace.seconds, RECORD_BYTES, 2000)
        servers = []
        for number in (1, 2):
            log = scratch / f"replica-{number}.log"
            port = free_port()
            servers.append(stack.enter_context(running(service(port, 1, repository, url), port, "/readyz", log)))
        asked = {1: plain(servers[0]), 2: Asked(servers, lambda seconds, number: _both(servers, seconds))}
        points = in_turn(asked, scratch, "replicas", pace)
    return [point | {"store_us": float(trip[2].replace(",", ""))} for point in points]


def in_turn(asked: dict[int, Asked], scratch: Path, what: str, pace: Pace) -> list[Point]:
    """A point for each, with its ratio to the empty endpoint, round by round.

    `worker_us`: of a processor in the service, for each answer; `worker_cores` and `busy_cores`: how many processors
    the service's workers, and all processes together, kept busy.
    """
    port = free_port()
    with running(empty_endpoint(port), port, "/", scratch / f"{what}-empty.log") as empty:
        everyone = {
            REFERENCE: Asked([empty], lambda seconds, number: press(empty.url, CONNECTIONS, seconds, predict=False)),
            **asked,
        }
        for at, each in everyone.items():
            pace.say(f"{what}: {at}, warming up")
            each.ask(WARM_S, 0)
        seen: dict[Any, list[dict[str, float]]] = {at: [] for at in everyone}
        for number in range(pace.rounds):
            for at, each in everyone.items():
                pace.say(f"{what}: {at}, round {number + 1}")
                seen[at].append(_one(each, pace.seconds, number + 1))
                seen[at][-1]["ratio"] = seen[at][-1]["per_s"] / seen[REFERENCE][-1]["per_s"]
    return [
        {"what": what, "at": at, **{key: median(run[key] for run in runs) for key in runs[0]}}
        for at, runs in seen.items()
        if at != REFERENCE
    ]


def plain(server: Server, path: str = PREDICT) -> Asked:
    """The load of `make bench` on one server."""
    return Asked(
        [server], lambda seconds, number: press(server.url, CONNECTIONS, seconds, predict=True, path=path)
    )


@contextmanager
def serving(repository: Path, state: Path, workers: int, *more: str) -> Iterator[Server]:
    """The service over a sqlite store in `state`."""
    port = free_port()
    command = [*service(port, workers, repository, state), *more]
    with running(command, port, "/readyz", state.with_suffix(".log")) as server:
        yield server


def _one(asked: Asked, seconds: int, number: int) -> dict[str, float]:
    began, busy = time.perf_counter(), busy_s()
    used = sum(processor_s(server) for server in asked.servers)
    load = asked.ask(seconds, number)
    took = time.perf_counter() - began
    used = sum(processor_s(server) for server in asked.servers) - used
    return {
        "per_s": load.per_s,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "worker_us": used / (load.per_s * seconds) * 1e6,
        "worker_cores": used / took,
        "busy_cores": (busy_s() - busy) / took,
    }


def _both(servers: list[Server], seconds: int) -> Load:
    """Each is asked over its share of the connections, for clients of its own; the higher of their percentiles."""
    share = CONNECTIONS // len(servers)
    with ThreadPoolExecutor(len(servers)) as threads:
        paths = [PREDICT.replace("bench", f"bench-{number}") for number in range(len(servers))]
        loads = list(
            threads.map(lambda server, path: press(server.url, share, seconds, predict=True, path=path), servers, paths)
        )
    return Load(
        sum(load.per_s for load in loads), max(load.p50_ms for load in loads), max(load.p99_ms for load in loads)
    )
