"""The section of docs/benchmarks.md on very many clients."""

from __future__ import annotations

from typing import Any

from benchmarks.table import BUSY

NAME = "million"
BOUND = 1.5

SECTION = """
## A million clients

    make million                                    # {minutes:.0f} minutes, {needs:.0f} GB, as it says first
    make million ARGS="--page docs/benchmarks.md"   # the same, and writes this section

{when}, {cpu}, {cores} cores; {bundle}; sqlite, two workers; {rounds} rounds of
{seconds} s.{busy} The same service runs over a store of {few:,} clients and over one of {clients:,};
random clients are asked, of the one and of the other in turn.

| connections | clients kept | predicts/s | p50 ms | p99 ms | p99 of few |
| ---: | ---: | ---: | ---: | ---: | ---: |
{load}

- Wanted is at most {bound} times the p99 of {few:,} clients: it {verdict}.
- A record takes {record:,} bytes, a client {disk:,.0f} bytes of disk with its share of the index:
  {total:.1f} GB for {clients:,}. Records were written when they were small and have grown since, as in life.
- Right after the operating system forgot the files, so that records are read from the disk, 8 connections:
  p50 {cold[p50_ms]:.2f} ms, p99 {cold[p99_ms]:.1f} ms.
- A new client's first predict: p50 {new[p50_ms]:.1f} ms, p99 {new[p99_ms]:.1f} ms, at most {new[max_ms]:.0f} ms;
  with {few:,} clients p50 {old[p50_ms]:.1f} ms, p99 {old[p99_ms]:.1f} ms, at most {old[max_ms]:.0f} ms.
- Listing all {listed[clients]:,} by pages of a thousand: {listed[seconds]:.1f} s;
  a page p50 {listed[p50_ms]:.1f} ms, p99 {listed[p99_ms]:.1f} ms.
- A sweep through all of them, the files in memory, at a tenth of one worker's time: {swept[seconds]:.0f} s,
  {swept[swept]:,.0f} expired clients swept.
  Predicts meanwhile, 8 connections: p50 {swept[p50_ms]:.2f} ms, p99 {swept[p99_ms]:.1f} ms.
- Filling the store took {fill:.0f} s: real records, in large transactions, in random order.
"""


def section(seen: dict[str, Any]) -> str:
    """The section for what was `seen`."""
    rows, worst = [], 0.0
    for at in seen["load"]:
        ratio = at.get("p99_ratio")
        worst = max(worst, ratio or 0.0)
        figures = (
            f"{at['per_s']:,.0f} | {at['p50_ms']:.2f} | {at['p99_ms']:.1f} | {'' if ratio is None else f'{ratio:.2f}'}"
        )
        rows.append(f"| {at['connections']} | {at['clients']:,} | {figures} |")
    total = seen["bytes_per_client"] * seen["clients"]
    machine = seen["machine"]
    seconds = seen["fill_s"] + seen["list"]["seconds"] + seen["sweep"]["seconds"] + 5 * seen["rounds"] * seen["seconds"]
    return SECTION.format(
        minutes=1 + seconds / 60,
        needs=total / 1e9 + 2,
        when=machine["when"][:10],
        cpu=machine["cpu"],
        cores=machine["cores"],
        bundle=seen["bundle"],
        rounds=seen["rounds"],
        seconds=seen["seconds"],
        busy=f" The machine was busy (load {machine['load_before']})." if machine["load_before"] > BUSY else "",
        load="\n".join(rows),
        bound=BOUND,
        verdict=f"is at most {worst:.2f}" if worst <= BOUND else f"is {worst:.2f}, which is missed",
        record=seen["record_bytes"],
        disk=seen["bytes_per_client"],
        total=total / 1e9,
        clients=seen["clients"],
        few=seen["few"],
        cold=seen["from_disk"],
        new=seen["new_ms"][seen["clients"]],
        old=seen["new_ms"][seen["few"]],
        listed=seen["list"],
        swept=seen["sweep"],
        fill=seen["fill_s"],
    )
