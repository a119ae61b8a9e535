"""The section of docs/benchmarks.md on scale: the four curves, and what was measured that limits each."""

from __future__ import annotations

from typing import Any

from benchmarks.table import BUSY

NAME = "scale"

SECTION = """
## Scale

    make scale                                                                # six minutes; needs wrk and redis-server
    make scale ARGS="--clients 1000,100000,1000000 --out docs --page docs/benchmarks.md"   # and writes this section

{when}, {cpu}, {cores} cores; {bundle}; {rounds} rounds of {seconds} s, 8 connections.{busy}
Everything is durable; the empty endpoint is asked in turn, and throughput is told as a ratio to it.

![Throughput and p99 against clients kept, workers, units and replicas](scale.png)

| against | | predicts/s | of empty | p50 ms | p99 ms | worker us each | cores: workers, all |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

What limits each:

- **Clients kept.** {clients}
- **Workers.** {workers}
- **Model size.** {units}
- **Replicas over Redis.** {replicas}

`scale.json` has the figures. "worker us each": processor time of the service's workers for each answer.
"""


def section(seen: dict[str, Any]) -> str:
    """The section for what was `seen`."""
    machine = seen["machine"]
    return SECTION.format(
        when=machine["when"][:10],
        cpu=machine["cpu"],
        cores=machine["cores"],
        bundle=seen["bundle"],
        rounds=seen["rounds"],
        seconds=seen["seconds"],
        busy=f" The machine was busy (load {machine['load_before']})." if machine["load_before"] > BUSY else "",
        rows="\n".join(_row(point) for name in ("clients", "workers", "units", "replicas") for point in seen[name]),
        clients=_clients(seen["clients"]),
        workers=_workers(seen["workers"], machine["cores"]),
        units=_units(seen["units"]),
        replicas=_replicas(seen["replicas"], seen["workers"], machine["cores"]),
    )


def _row(at: dict[str, Any]) -> str:
    speed = f"{at['per_s']:,.0f} | {at['ratio']:.2f} | {at['p50_ms']:.2f} | {at['p99_ms']:.1f}"
    cores = f"{at['worker_cores']:.2f}, {at['busy_cores']:.2f}"
    return f"| {at['what']} | {at['at']:,} | {speed} | {at['worker_us']:.0f} | {cores} |"


def _clients(points: list[dict[str, Any]]) -> str:
    few, many = points[0], points[-1]
    return (
        f"{many['at']:,} clients take {many['bytes'] * many['at'] / 1e9:.2f} GB of files, {many['bytes']:,.0f} bytes "
        f"each. Reading one record at random, in memory, takes {many['load_us']:.0f} us there and "
        f"{few['load_us']:.0f} us among {few['at']:,}; a whole predict {many['worker_us']:.0f} and "
        f"{few['worker_us']:.0f} us of a worker."
    )


def _workers(points: list[dict[str, Any]], cores: int) -> str:
    one, two = points
    return (
        f"Two workers give {two['per_s'] / one['per_s']:.2f} times the predicts of one. One keeps "
        f"{one['worker_cores']:.2f} cores busy; two keep {two['worker_cores']:.2f} busy, and with wrk and all others "
        f"{two['busy_cores']:.2f} of the machine's {cores}: the load generator takes its share of the same cores."
    )


def _units(points: list[dict[str, Any]]) -> str:
    small, large = points[0], points[-1]
    times, squared = large["step_us"] / small["step_us"], (large["at"] / small["at"]) ** 2
    shares = ", ".join(
        f"{at['step_us']:,.0f} us at {at['at']} ({min(1, at['step_us'] / at['worker_us']):.0%})" for at in points
    )
    return (
        f"One engine step and its share of the worker's time for a predict: {shares}. An LSTM's weights grow with "
        f"the square of its units: {squared:,.0f} times from the smallest to the largest, its step {times:,.0f} times. "
        f"For 256 clients at once a step of {large['at']} units takes {large['step_256_us'] / 256:,.0f} us for each."
    )


def _replicas(points: list[dict[str, Any]], workers: list[dict[str, Any]], cores: int) -> str:
    one, two = points
    return (
        f"A load and a save of one record take {one['store_us']:,.0f} us, Redis syncing each write to its disk. One "
        f"replica answers {one['per_s'] / workers[0]['per_s']:.2f} times the predicts of one worker over sqlite, two "
        f"{two['per_s'] / one['per_s']:.2f} times those of one replica: they, Redis and wrk share {cores} cores, of "
        f"which {two['busy_cores']:.2f} were busy ({two['worker_cores']:.2f} with the services)."
    )
