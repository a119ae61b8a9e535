"""`memory://`: records in this process and nowhere else, for tests and a single worker that may forget."""

from __future__ import annotations

import heapq
import threading

from service.core.errors import StoreUnavailable
from service.core.ports import Page, Stored
from service.core.types import ClientKey
from service.stores import cursors

_KIND = "m"


class MemoryStore:
    """A StateStore and CountsClients of one process. A forked process goes on with a copy of its own."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], dict[str, Stored]] | None = {}
        self._guard = threading.Lock()

    def load(self, key: ClientKey) -> Stored | None:
        with self._guard:
            return self._clients(key.tenant, key.model).get(key.client)

    def save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes) -> bool:
        with self._guard:
            models = self._open()
            stored = models.get((key.tenant, key.model), {}).get(key.client)
            nonce = None if stored is None else stored.nonce
            if nonce not in (old, new):
                return False
            models.setdefault((key.tenant, key.model), {})[key.client] = Stored(bytes(new), bytes(blob))
            return True

    def delete(self, key: ClientKey) -> bool:
        with self._guard:
            clients = self._clients(key.tenant, key.model)
            there = clients.pop(key.client, None) is not None
            if there and not clients:
                del self._open()[key.tenant, key.model]
            return there

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

    def close(self) -> None:
        with self._guard:
            self._models = None

    def _clients(self, tenant: str, model: str) -> dict[str, Stored]:
        return self._open().get((tenant, model), {})

    def _open(self) -> dict[tuple[str, str], dict[str, Stored]]:
        if self._models is None:
            raise StoreUnavailable("the store is closed")
        return self._models
