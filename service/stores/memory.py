"""`memory://`: records in this process and nowhere else, for tests and a single worker that may forget."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from typing import NamedTuple

from service.core.errors import StoreUnavailable
from service.core.ports import Entry, Page, Save, Scan, Stored
from service.core.types import ClientKey
from service.stores import cursors
from service.stores.many import check_distinct

_KIND, _SCAN = "m", "m-scan"


class _Kept(NamedTuple):
    stored: Stored
    number: int


class MemoryStore:
    """A StateStore of one process, with every optional power. A forked process goes on with a copy of its own."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], dict[str, _Kept]] | None = {}
        self._numbers: dict[int, ClientKey] = {}  # every record has the number it was created with: a scan's order
        self._next = 0
        self._guard = threading.Lock()

    def load(self, key: ClientKey) -> Stored | None:
        with self._guard:
            kept = self._clients(key.tenant, key.model).get(key.client)
            return None if kept is None else kept.stored

    def save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes) -> bool:
        with self._guard:
            return self._save(key, old, new, blob)

    def load_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        return [self.load(key) for key in keys]

    def save_many(self, saves: Sequence[Save]) -> list[bool]:
        check_distinct(saves)
        with self._guard:
            self._open()
            return [self._save(*save) for save in saves]

    def delete(self, key: ClientKey, old: bytes | None = None) -> bool:
        with self._guard:
            clients = self._clients(key.tenant, key.model)
            kept = clients.get(key.client)
            if kept is None or old not in (None, kept.stored.nonce):
                return False
            del clients[key.client], self._numbers[kept.number]
            if not clients:
                del self._open()[key.tenant, key.model]
            return True

    def list(self, tenant: str, model: str, after: str | None, limit: int) -> Page:
        last = None if after is None else cursors.decode(_KIND, 1, after)[1]
        with self._guard:
            clients = self._clients(tenant, model)
            found = heapq.nsmallest(limit + 1, (name for name in clients if last is None or name > last))
        page = found[:limit]
        return Page(page, cursors.encode(_KIND, 0, page[-1]) if len(found) > limit else None)

    def count(self, tenant: str, model: str) -> int:
        with self._guard:
            return len(self._clients(tenant, model))

    def records(self) -> int:
        with self._guard:
            self._open()
            return len(self._numbers)

    def scan(self, after: str | None, limit: int) -> Scan:
        """In the order of creation; a slice looks at `limit` numbers, and those of deleted records are empty."""
        first = 0 if after is None else cursors.decode_number(_SCAN, 1, after)[1] + 1
        with self._guard:
            models, end = self._open(), min(first + limit, self._next)
            keys = [self._numbers[number] for number in range(first, end) if number in self._numbers]
            entries = [Entry(key, *models[key.tenant, key.model][key.client].stored) for key in keys]
            return Scan(entries, cursors.encode_number(_SCAN, 0, end - 1) if end < self._next else None)

    def close(self) -> None:
        with self._guard:
            self._models = None

    def _save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes | memoryview) -> bool:
        models = self._open()
        kept = models.get((key.tenant, key.model), {}).get(key.client)
        if (None if kept is None else kept.stored.nonce) not in (old, new):
            return False
        number = self._numbered(key) if kept is None else kept.number
        models.setdefault((key.tenant, key.model), {})[key.client] = _Kept(Stored(bytes(new), bytes(blob)), number)
        return True

    def _numbered(self, key: ClientKey) -> int:
        """The next number, now that of `key`."""
        number, self._next = self._next, self._next + 1
        self._numbers[number] = key
        return number

    def _clients(self, tenant: str, model: str) -> dict[str, _Kept]:
        return self._open().get((tenant, model), {})

    def _open(self) -> dict[tuple[str, str], dict[str, _Kept]]:
        if self._models is None:
            raise StoreUnavailable("the store is closed")
        return self._models
