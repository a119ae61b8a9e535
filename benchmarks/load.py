"""Runs wrk against a server and reads what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
PREDICT = "/v1/models/sensor/clients/bench-%d/predict"


class BenchmarkFailed(Exception):
    """A measurement that would mean nothing: a tool is missing, or answers were not what they should be."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw: requests a second, and latencies in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float


def find_wrk() -> str:
    """The path of wrk; BenchmarkFailed with what to install if there is none."""
    found = shutil.which("wrk")
    if found is None:
        raise BenchmarkFailed("wrk, which makes the load, is not installed: apt-get install wrk")
    return found


def press(url: str, connections: int, seconds: int, *, predict: bool, path: str = PREDICT) -> Load:
    """Ask `url` over `connections` kept-alive connections for `seconds`; predicts if `predict`, else plain GETs.

    `path` has a %d for the number of a client. BenchmarkFailed if any answer was not 2xx or any connection broke.
    """
    environment = {"BENCH_PATH": path, "BENCH_CONNECTIONS": str(connections)}
    return wrk(url, "predict.lua" if predict else "report.lua", connections, seconds, environment)


def press_crowd(url: str, clients: int, connections: int, seconds: int, seed: int) -> Load:
    """Predicts of random ones of many `clients`, as `press`."""
    environment = {"BENCH_CLIENTS": str(clients), "BENCH_SEED": str(seed)}
    return wrk(url, "crowd.lua", connections, seconds, environment)


def wrk(url: str, script: str, connections: int, seconds: int, environment: dict[str, str]) -> Load:
    """Runs wrk with one of the scripts that lie here. BenchmarkFailed if any answer was not 2xx, or none came."""
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(HERE / script), url]
    environment = os.environ | {"BENCH_LUA": str(HERE)} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchmarkFailed(f"wrk failed: {done.stdout}{done.stderr}")
    seen = json.loads(line.removeprefix("RESULT "))
    if seen["refused"] or seen["broken"]:
        raise BenchmarkFailed(f"{url}: not every answer was 2xx: {seen}")
    if not seen["requests"]:
        raise BenchmarkFailed(f"{url}: no answer within {seconds} s; is the machine very busy?")
    return Load(seen["requests"] / (seen["duration_us"] / 1e6), seen["p50_us"] / 1e3, seen["p99_us"] / 1e3)


def middle(loads: list[Load]) -> Load:
    """The median of each figure over repeated runs."""
    return Load(*(median(getattr(load, name) for load in loads) for name in ("per_s", "p50_ms", "p99_ms")))
