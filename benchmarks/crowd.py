"""Fills a sqlite store with very many clients: real records, made by the service, under as many names.

The records are those of some template clients; each is packed anew for its own client, as its checksum asks for. They
go into the store's own files by large transactions, in an order as random as life's: first as they are after a client's
first observation, then, in another order, as they are after hundreds. A record that grows moves others out of its page,
which is what a store of clients that came one by one looks like.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.bundle import NAME, weather
from benchmarks.load import BenchmarkFailed
from service.bootstrap import build
from service.core.lease import Lease
from service.core.record import Record, decode, encode
from service.core.types import ClientKey
from service.http.context import TENANT
from service.settings import Settings
from service.stores import open_store
from service.stores.sqlite_folder import SHARDS, prepare, shard_file, shard_of

CLIENT = "crowd-{}"
TEMPLATES = 64
HISTORY = 600  # observations of a grown template: more than any context holds
REQUESTS = 40  # the last of them one by one: more requests than a record remembers
BATCH = 5_000  # clients in a transaction
EXPIRED_S = 8 * 86400.0
_COME = "INSERT INTO records (key, nonce, blob) VALUES (:key, :nonce, :blob)"
_GROW = "UPDATE records SET nonce=:nonce, blob=:blob WHERE key=:key"


class Template(NamedTuple):
    """A client's record after its first observation, and after hundreds."""

    young: Record
    grown: Record


def templates(models: Path) -> list[Template]:
    """Records as the service of `models` makes them."""
    service = build(Settings(models_dir=models, state_url="memory://", workers=1))
    try:
        http, found = service.app.test_client(), []
        for n in range(TEMPLATES):
            key = _key(n)
            path = f"/v1/models/{NAME}/clients/{key.client}/predict"
            series, records = (weather(HISTORY) + 0.01 * n).round(2).tolist(), []
            for part in (series[:1], series[1:-REQUESTS], *([one] for one in series[-REQUESTS:])):
                answer = http.post(path, json={"observations": part})
                if answer.status_code != 200:
                    raise BenchmarkFailed(f"{path}: {answer.text}")
                if (stored := service.store.load(key)) is not None:
                    records.append(decode(key, stored.blob))
            found.append(Template(records[0], records[-1]))
        return found
    finally:
        service.close()


def fill(
    folder: Path, records: list[Template], clients: int, now: float, expired: int, advance: Callable[[int], None]
) -> None:
    """Makes `folder` a store of that many clients, of which `expired` (spread over all) were last heard of too long
    ago. No sweep is due in it. `advance` hears how many more are written, each client twice."""
    prepare(folder)
    every = clients // expired if expired else clients + 1
    rng = random.Random(5)
    for shard, numbers in enumerate(_by_shard(clients)):
        with closing(sqlite3.connect(shard_file(folder, shard), isolation_level=None)) as connection:
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-100000"):
                connection.execute(f"PRAGMA {pragma}")
            for stage, statement in enumerate((_COME, _GROW)):
                rng.shuffle(numbers)
                rows = _rows(numbers, [template[stage] for template in records], now, every, rng)
                while batch := list(islice(rows, BATCH)):
                    connection.execute("BEGIN")
                    connection.executemany(statement, batch)
                    connection.execute("COMMIT")
                    advance(len(batch))
            connection.execute("PRAGMA journal_mode=WAL")
    store = open_store(f"sqlite:///{folder}")
    lease = Lease(store, "sweep", lambda: now)
    lease.take(1.0)
    lease.give_back(done=True)
    store.close()


def record_bytes(record: Record) -> int:
    """How long a record is, packed."""
    return len(encode(_key(0), record))


def size(folder: Path) -> int:
    """Bytes that the store's files take."""
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())


def load_us(folder: Path, clients: int, loads: int = 5_000) -> float:
    """Median microseconds in which this process reads the record of a client drawn at random."""
    store, rng, times = open_store(f"sqlite:///{folder}"), random.Random(6), []
    for _ in range(loads):
        key = _key(rng.randrange(clients))
        began = time.perf_counter()
        store.load(key)
        times.append((time.perf_counter() - began) * 1e6)
    store.close()
    return median(times)


def forget_pages(folder: Path) -> None:
    """Lets the operating system drop what it holds of the files in memory: reads come from the disk then."""
    for file in folder.glob("shard-*.db"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def remember_pages(folder: Path) -> None:
    """Reads the files, so that the operating system holds them in memory again as far as it has room."""
    for path in folder.glob("shard-*.db"):
        with path.open("rb", buffering=0) as file:
            while file.read(2**22):
                pass


def _by_shard(clients: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(SHARDS)]
    for n in range(clients):
        found[shard_of(_key(n).path())].append(n)
    return found


def _rows(
    numbers: list[int], records: list[Record], now: float, every: int, rng: random.Random
) -> Iterator[dict[str, str | bytes]]:
    for n in numbers:
        touched = now - EXPIRED_S if n % every == every - 1 else now - rng.random() * 86400
        record = replace(records[n % len(records)], touched=touched, created=touched - 30 * 86400)
        yield {"key": _key(n).path(), "nonce": rng.randbytes(8), "blob": encode(_key(n), record)}


def _key(n: int) -> ClientKey:
    return ClientKey(TENANT, NAME, CLIENT.format(n))
