"""What a bulk request takes of the libraries alone: JSON both ways, the engine, checksums, SQLite, and nothing of ours.

Each is given what it needs ready made, so that no Python is in what is measured but the calls themselves: in one thread
the service can't take less, however it were written.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import orjson

from benchmarks.bare import Bare, bundle_of
from benchmarks.bulk import CLIENTS, PATH
from benchmarks.bundle import NAME, weather
from benchmarks.servers import Server, free_port, running, service
from models.manifest import STEP_TFLITE
from service.core.ports import Save
from service.core.types import ClientKey
from service.engines.litert import CHUNK
from service.stores import sqlite_statements as sql
from service.stores.sqlite_folder import SHARDS, prepare, shard_file
from service.stores.sqlite_shard import Shard
from service.stores.sqlite_together import swap_values

TURNS = 60
NONCE_BYTES = 8


class Asked(NamedTuple):
    """A bulk request, what the service said to it, and how large each client's record is then."""

    request: bytes
    answer: bytes
    record_bytes: int


def measure(repository: Path, scratch: Path) -> dict[str, float]:
    """Microseconds of a processor for one client's step of a bulk request, by library and in `all`; medians."""
    port = free_port()
    command = service(port, 1, repository, scratch / "bulk-asked")
    with running(command, port, "/readyz", scratch / "bulk-asked.log") as server:
        asked = _ask(server, bundle_of(repository, NAME)[1].context_length + 1)
    said = orjson.loads(asked.answer)
    parts: dict[str, Callable[[], Any]] = {
        "json": lambda: (orjson.loads(asked.request), orjson.dumps(said)),
        "engine": _engine(repository),
        "checksums": _checksums(asked.record_bytes),
        "sqlite": _sqlite(scratch / "bulk-bare", asked.record_bytes),
    }
    took: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(TURNS):
        for name, work in parts.items():
            began = time.thread_time()
            work()
            took[name].append((time.thread_time() - began) / CLIENTS * 1e6)
    seen = {name: median(each) for name, each in took.items()}
    return {**seen, "all": sum(seen.values())}


def _ask(server: Server, times: int) -> Asked:
    """The last of so many requests, after which records have all that they ever hold."""
    for row in weather(times).astype(float).round(2).tolist():
        items = [{"client": f"asked-{n}", "observation": row} for n in range(CLIENTS)]
        request = orjson.dumps({"items": items})
        answer = _get(server, PATH, request)
    client = orjson.loads(_get(server, f"/v1/models/{NAME}/clients/asked-0"))
    return Asked(request, answer, client["record_bytes"])


def _get(server: Server, path: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(server.url + path.removeprefix("/"), body, timeout=60) as answer:
        said: bytes = answer.read()
    return said


def _engine(repository: Path) -> Callable[[], Any]:
    bundle, spec = bundle_of(repository, NAME)
    bare = Bare(bundle / STEP_TFLITE, CHUNK)
    x, state = weather(CHUNK), np.repeat(spec.initial_state[None], CHUNK, axis=0)
    return lambda: [bare.step(x, state) for _ in range(CLIENTS // CHUNK)]


def _checksums(record_bytes: int) -> Callable[[], Any]:
    records = [np.random.default_rng(n).bytes(record_bytes) for n in range(CLIENTS)]
    return lambda: list(map(crc32, records))


def _sqlite(folder: Path, record_bytes: int) -> Callable[[], Any]:
    """Replaces as many records, an equal part in each shard of a new store, by the service's own statement.

    Two contents take turns, each naming the other as the old one.
    """
    prepare(folder)
    connections = [Shard(shard_file(folder, number), "NORMAL").connect() for number in range(SHARDS)]
    each, random = CLIENTS // SHARDS, np.random.default_rng(1)
    paths = [f"default/{NAME}/client-{n}" for n in range(each)]
    nonces = [[random.bytes(NONCE_BYTES) for _ in range(each)] for _ in range(2)]
    blobs = [[random.bytes(record_bytes) for _ in range(each)] for _ in range(2)]
    for connection in connections:
        for path, nonce in zip(paths, nonces[1], strict=True):
            connection.execute(sql.INSERT, (path, nonce, bytes(record_bytes)))
    keys = [ClientKey.of_path(path) for path in paths]
    values = [
        swap_values(paths, list(map(Save, keys, nonces[1 - new], nonces[new], blobs[new]))) for new in range(2)
    ]
    statement, turn = sql.swap_all(each), 0

    def replace() -> None:
        nonlocal turn
        for connection in connections:
            connection.execute(statement, values[turn])
        turn = 1 - turn

    return replace
