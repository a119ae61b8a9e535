"""Room for new clients: an approximate count, looked up seldom and added to in between."""

from __future__ import annotations

from dataclasses import dataclass

from service.core.errors import AtCapacity
from service.core.patience import give_way
from service.core.ports import Clock, CountsClients, StateStore

LEASE_S = 10.0


@dataclass(slots=True)
class _Count:
    clients: int
    until: float


class Capacity:
    """Refuses new clients of a (tenant, model) beyond `limit`; those that exist are never asked.

    The store's count is taken at most every 10 s per process, with this process's own changes added: N
    processes can overshoot by what the other N - 1 admit within 10 s. A store that can't count has no limit.
    """

    def __init__(self, store: StateStore, limit: int, clock: Clock) -> None:
        self._counts = store if isinstance(store, CountsClients) else None
        self._limit = limit
        self._clock = clock
        self._known: dict[tuple[str, str], _Count] = {}

    def check(self, tenant: str, model: str) -> None:
        """AtCapacity if there is no room for one more client."""
        if self._counts is None:
            return
        now = self._clock()
        known = self._known.get((tenant, model))
        if known is None or not known.until - LEASE_S <= now < known.until:  # a clock may be set back
            give_way()  # a count looks at every client
            known = _Count(self._counts.count(tenant, model), now + LEASE_S)
            self._known[tenant, model] = known
        if known.clients >= self._limit:
            raise AtCapacity(self._limit, max(1.0, known.until - now))

    def add(self, tenant: str, model: str, clients: int) -> None:
        """Count `clients` more, or fewer, until the store is asked again."""
        known = self._known.get((tenant, model))
        if known is not None:
            known.clients += clients
