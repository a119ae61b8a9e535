"""A run's figures as docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

from benchmarks.table import BUSY
from benchmarks.wanted import amount

PAGE = """# Benchmarks

    make bench                                      # four minutes; needs wrk (apt-get install wrk)
    make bench ARGS="--page docs/benchmarks.md"     # the same, and writes this page

One run measures everything, so that its figures may be compared with each other: an empty Flask endpoint under gunicorn
(gthread, one worker, eight threads) is the reference, and takes turns with our service, round after round. A figure is
the median of its rounds. The load comes from wrk on the same machine, over kept-alive connections; every predict is the
next observation of one of many clients, saved in a sqlite store before it is answered. A run in which any answer was
not 2xx fails. The figures are also written to `build/bench.json`.
[profile.md](profile.md) has where the time of a predict goes, without the noise of a machine.

## A run

{when}, {cpu}, {cores} cores, Python {python}, gunicorn {gunicorn}, Flask {flask}, LiteRT {litert}; {bundle};
{rounds} rounds of {seconds} s.{busy}

| connections | server | requests/s | p50 ms | p99 ms | of empty |
| ---: | --- | ---: | ---: | ---: | ---: |
{load}

What is wanted, and whether this run reached it:

| figure | this run | wanted | |
| --- | ---: | --- | --- |
{wanted}

- Bulk, 256 clients in a request, 4 connections, every record saved before its answer: {bulk_one[steps_per_s]:,.0f}
  client-steps/s with one worker, {bulk_one[of_empty]:.0f} for each request of the empty endpoint at 8 connections;
  {bulk_two[steps_per_s]:,.0f} with two, {bulk_two[of_empty]:.0f} of them. A step takes {bulk_one[processor_us]:.1f} us
  of a processor. The libraries alone, everything given to them ready made, take {bare[all]:.1f} of these: SQLite
  {bare[sqlite]:.1f}, the engine {bare[engine]:.1f}, JSON {bare[json]:.1f}, checksums {bare[checksums]:.1f}.
- A history of {history[observations]:,} over HTTP: {history[http_ms]:.0f} ms, {history[ratio]:.2f} times what LiteRT
  alone takes for its steps. A state made anew from {rebuild[rows]} observations: {rebuild[rebuild_ms]:.1f} ms,
  {rebuild[ratio]:.2f} times LiteRT alone.
- Predicts of others, 8 connections to one worker, while it takes histories of {others[observations]:,}:
  p50 {meanwhile[p50_ms]:.1f} ms, p99 {meanwhile[p99_ms]:.1f} ms; alone p50 {alone[p50_ms]:.1f} ms,
  p99 {alone[p99_ms]:.1f} ms. The worker has {primed_mb:.0f} MB after it.
- From process start to ready, two models: {ready_s:.2f} s. Resident memory of each worker: {memory} MB; TensorFlow is
  {tensorflow}loaded.
- One engine step (LiteRT): {step[1][step_us]:.1f} us for one client, {step[32][step_us]:.0f} us for 32,
  {step[256][step_us]:.0f} us for 256; the bare runtime takes {step[1][bare_us]:.1f}, {step[32][bare_us]:.0f}
  and {step[256][bare_us]:.0f} us.
- Store, load and save of a 4.6 kB record: p50 {one[2]} us, p99 {one[3]} us; two processes at once: p50 {two[2]} us,
  p99 {two[3]} us.

## Reading it

With one connection the figures are latencies; with 8, one worker is busy all the time; with 64, requests queue. Two
workers share two cores with the load generator, so they do not reach twice the figure of one. The ratio counts rather
than the requests/s: it compares with the same kind of server while the application does nothing at all.
"""


def page(seen: dict[str, Any]) -> str:
    """The page for what was `seen`."""
    machine, load, workers = seen["machine"], seen["load"], seen["workers"]
    rows = []
    for connections in load["empty"]:
        for name, figures in load.items():
            at, server = figures[connections], name if name == "empty" else f"predict, {name}"
            speed = f"{at['per_s']:,.0f} | {at['p50_ms']:.2f} | {at['p99_ms']:.1f} | {at['ratio']:.2f}"
            rows.append(f"| {connections} | {server} | {speed} |")
    ours = [worker for name, each in workers.items() if name != "empty" for worker in each]
    busy = f" The machine was busy (load {machine['load_before']})." if machine["load_before"] > BUSY else ""
    return PAGE.format(
        when=machine["when"][:10],
        cpu=machine["cpu"],
        cores=machine["cores"],
        python=machine["python"],
        gunicorn=machine["gunicorn"],
        flask=machine["flask"],
        litert=machine["ai-edge-litert"],
        bundle=seen["bundle"],
        rounds=seen["rounds"],
        seconds=seen["seconds"],
        busy=busy,
        load="\n".join(rows),
        wanted="\n".join(
            f"| {each['name']} | {amount(each['figure'], each['unit'])} | {each['wanted']} | {each['verdict']} |"
            for each in seen["wanted"]
        ),
        bulk_one=seen["bulk"]["one worker"],
        bulk_two=seen["bulk"]["two workers"],
        bare=seen["bulk_bare"],
        history=seen["priming"]["history"],
        rebuild=seen["priming"]["rebuild"],
        others=seen["priming"]["others"],
        meanwhile=seen["priming"]["others"]["priming"],
        alone=seen["priming"]["others"]["alone"],
        primed_mb=seen["priming"]["resident_mb"],
        ready_s=seen["ready_s"],
        memory=", ".join(f"{worker['resident_mb']:.0f}" for worker in ours),
        tensorflow="" if any(worker["tensorflow"] for worker in ours) else "not ",
        step=seen["engine"],
        one=seen["store"][0],
        two=seen["store"][1],
    )
