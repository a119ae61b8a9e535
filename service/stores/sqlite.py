"""`sqlite:///folder`: records on this machine's disk (no network file system), shared by all its processes.

Saves are single compare-and-set statements, each a transaction of its own, many together one for each file; locks only
make the waiting fair. With durability `process` what is acknowledged survives the end of any process, with `power` also
that of the machine.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from service.core.patience import give_way
from service.core.perlist import PerList
from service.core.ports import Entry, Page, Save, Scan, Stored
from service.core.types import ClientKey
from service.stores import cursors
from service.stores.forks import watch
from service.stores.many import check_distinct
from service.stores.sqlite_checkpoint import Checkpointer
from service.stores.sqlite_folder import SHARDS, checkpoint_lock, prepare, shard_file, shard_of
from service.stores.sqlite_shard import Shard

logger = logging.getLogger(__name__)

T = TypeVar("T")
Durability = Literal["process", "power"]
SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "power": "FULL"}

_KIND, _SCAN = "s", "s-scan"
_BEYOND = "\x7f"  # every key is before it: percent-encoded text


class SqliteStore:
    """A StateStore with every optional power in the files of `folder`, which is made if it is not there.

    StoreNotOpened for a folder that can't be made, written or understood. Connections are opened when a process
    first needs them, so an open store may be forked, also while other threads use it.
    """

    def __init__(self, folder: Path, durability: Durability = "process") -> None:
        folder = folder.absolute()
        prepare(folder)
        self._shards = [Shard(shard_file(folder, number), SYNCHRONOUS[durability]) for number in range(SHARDS)]
        self._checkpointer = Checkpointer(self._shards, checkpoint_lock(folder))
        watch(self)

    def load(self, key: ClientKey) -> Stored | None:
        shard, path = _place(key)
        return self._shards[shard].load(path)

    def save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes) -> bool:
        if not self._checkpointer.running:
            self._checkpointer.start()
        shard, path = _place(key)
        return self._shards[shard].save(path, old, new, blob)

    def load_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """See SavesMany.load_many. Shard by shard."""
        give_way()
        found: list[Stored | None] = [None] * len(keys)
        for part in _shared_out.of(tuple(keys)):
            for place, stored in zip(part.places, self._shards[part.shard].load_many(part.paths), strict=True):
                found[place] = stored
        return found

    def save_many(self, saves: Sequence[Save]) -> list[bool]:
        """See SavesMany.save_many. Shard by shard, a transaction each; at the first that fails the rest is left."""
        check_distinct(saves)
        give_way()  # once a shard has its part it is too late to give way
        if not self._checkpointer.running:
            self._checkpointer.start()
        answers = [True] * len(saves)
        for part in _shared_out.of(tuple(map(itemgetter(0), saves))):
            said = self._shards[part.shard].save_many(part.paths, part.of(saves))
            if not all(said):
                for place, answer in zip(part.places, said, strict=True):
                    answers[place] = answer
        return answers

    def delete(self, key: ClientKey, old: bytes | None = None) -> bool:
        if not self._checkpointer.running:
            self._checkpointer.start()
        shard, path = _place(key)
        return self._shards[shard].delete(path, old)

    def list(self, tenant: str, model: str, after: str | None, limit: int) -> Page:
        """Shard by shard, in the order of keys: each client is met where its key stands, whatever comes or goes."""
        start, end = _bounds(tenant, model)
        shard, last = (0, "") if after is None else cursors.decode(_KIND, SHARDS, after)
        place = start + quote(last, safe="")
        found: list[tuple[int, str]] = []
        while shard < SHARDS and len(found) <= limit:
            keys = self._shards[shard].keys(place, end, limit + 1 - len(found))
            found += [(shard, unquote(key[len(start) :])) for key in keys]
            shard, place = shard + 1, start
        page = found[:limit]
        return Page([client for _, client in page], cursors.encode(_KIND, *page[-1]) if len(found) > limit else None)

    def count(self, tenant: str, model: str) -> int:
        start, end = _bounds(tenant, model)
        return sum(shard.count(start, end) for shard in self._shards)

    def scan(self, after: str | None, limit: int) -> Scan:
        """Shard by shard, in the order of rowids, which a record keeps while it is there. A slice is of one shard."""
        shard, last = (0, 0) if after is None else cursors.decode_number(_SCAN, SHARDS, after)
        rows = self._shards[shard].rows(last, limit)
        entries = [Entry(key, *row[2:]) for row in rows if (key := _key(row[1])) is not None]
        if len(entries) < len(rows):
            logger.error("damaged rows have no client", extra={"shard": shard, "rows": len(rows) - len(entries)})
        if len(rows) == limit:
            return Scan(entries, cursors.encode_number(_SCAN, shard, rows[-1][0]))
        return Scan(entries, cursors.encode_number(_SCAN, shard + 1, 0) if shard + 1 < SHARDS else None)

    def records(self) -> int:
        return sum(shard.count("", _BEYOND) for shard in self._shards)

    def close(self) -> None:
        self._checkpointer.close()
        for shard in self._shards:
            shard.close()

    def before_fork(self) -> None:
        """For `forks.watch`: no thread is at work, nothing is open."""
        self._checkpointer.before_fork()
        for shard in self._shards:
            shard.before_fork()

    def after_fork(self, *, child: bool) -> None:
        """For `forks.watch`: work goes on."""
        for shard in self._shards:
            shard.after_fork(child=child)
        self._checkpointer.after_fork(child=child)


class _Part(NamedTuple):
    """What of many keys one shard has: at which places they stand, and what their paths are."""

    shard: int
    places: Sequence[int]
    paths: Sequence[str]

    def of(self, values: Sequence[T]) -> Sequence[T]:
        """Those that stand at these places."""
        return itemgetter(*self.places)(values) if len(self.places) > 1 else [values[self.places[0]]]


def _share_out(keys: tuple[ClientKey, ...]) -> list[_Part]:
    """The shards that keep some of `keys`."""
    places: list[list[int]] = [[] for _ in range(SHARDS)]
    paths: list[list[str]] = [[] for _ in range(SHARDS)]
    for at, (number, path) in enumerate(map(_place, keys)):
        places[number].append(at)
        paths[number].append(path)
    return [_Part(number, places[number], paths[number]) for number in range(SHARDS) if places[number]]


_shared_out = PerList(_share_out)


@lru_cache(maxsize=16_384)
def _place(key: ClientKey) -> tuple[int, str]:
    """The shard of a key and the key as text. Cached, because every request asks twice and it takes some us."""
    path = key.path()
    return shard_of(path), path


def _key(path: bytes) -> ClientKey | None:
    """The key that a row names; None for a damaged one, which nobody finds by its name."""
    try:
        return ClientKey.of_path(path.decode())
    except (UnicodeDecodeError, TypeError):
        return None


def _bounds(tenant: str, model: str) -> tuple[str, str]:
    """Every key of a model, and none of another, lies strictly between these two."""
    start = ClientKey(tenant, model, "").path()
    return start, start[:-1] + chr(ord("/") + 1)
