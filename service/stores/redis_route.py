"""Which server to ask about a bucket: the only one there is, or the one that holds the bucket's slot in a Cluster."""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

from redis.exceptions import RedisError

from service.core.errors import StoreUnavailable
from service.stores.redis_keys import BUCKETS, slot_of
from service.stores.redis_patience import Patience
from service.stores.redis_server import Address, Server
from service.stores.redis_url import Whereabouts


class Route(Protocol):
    """Any thread. `patience` is for the time when nobody is known to ask; `trouble` says why that is."""

    patience: Patience
    trouble: str

    def server(self, bucket: int) -> Server | None:
        """Who holds `bucket`, as far as is known."""
        ...

    def at(self, address: Address) -> Server:
        """The server at an address."""
        ...

    def moved(self, bucket: int, address: Address) -> None:
        """A server said that `bucket` is held at `address`. StoreUnavailable where nobody can say so."""
        ...

    def refresh(self, end: float, failed: Server | None) -> None:
        """Find out who holds what, `failed` asked last; gives up without a word at `end` of time.monotonic()."""
        ...

    def close(self) -> None:
        """Give all connections back."""
        ...


class Single:
    """One server that holds everything."""

    def __init__(self, where: Whereabouts) -> None:
        self.patience = Patience()
        self.trouble = ""
        self._server = Server(where.servers[0], where)

    def server(self, bucket: int) -> Server:
        """The server."""
        return self._server

    def at(self, address: Address) -> Server:
        """The server."""
        return self._server

    def moved(self, bucket: int, address: Address) -> None:
        """Says that the URL should be another."""
        raise StoreUnavailable(
            "this Redis server is one of a Cluster: the state URL has to begin with redis+cluster://"
        )

    def refresh(self, end: float, failed: Server | None) -> None:
        """There is nothing to find out."""

    def close(self) -> None:
        """Gives all connections back."""
        self._server.disconnect()


class Cluster:
    """The servers of a Cluster that hold slots; what they hold is asked of any of them when it is first needed, and
    again after each failure, as another may have taken over."""

    def __init__(self, where: Whereabouts) -> None:
        self.patience = Patience()
        self.trouble = ""
        self._where = where
        self._servers: dict[Address, Server] = {}
        self._holders: list[Address | None] = [None] * BUCKETS
        self._refreshing = threading.Lock()
        self._refreshed = 0

    def server(self, bucket: int) -> Server | None:
        """Who holds `bucket`; None before the first refresh, and while nobody holds it."""
        address = self._holders[bucket]
        return None if address is None else self.at(address)

    def at(self, address: Address) -> Server:
        """The server at an address; nothing is opened yet for a new one."""
        server = self._servers.get(address)
        return self._servers.setdefault(address, Server(address, self._where)) if server is None else server

    def moved(self, bucket: int, address: Address) -> None:
        """Goes by it from now on."""
        self._holders[bucket] = address

    def refresh(self, end: float, failed: Server | None) -> None:
        """See Route.refresh. One thread asks; the others wait for it, and take what it found."""
        before = self._refreshed
        if not self._refreshing.acquire(timeout=max(0.0, end - time.monotonic())):
            return
        try:
            if self._refreshed != before:
                return
            for address in self._to_ask(failed):
                if time.monotonic() >= end:
                    return
                try:
                    reply = self.at(address).call(("CLUSTER", "SLOTS"))
                except RedisError as error:
                    self.trouble = str(error)
                    continue
                self._holders = _holders(reply, address[0])
                self._forget_others()
                self._refreshed += 1
                return
        finally:
            self._refreshing.release()

    def close(self) -> None:
        """Gives all connections back."""
        for server in list(self._servers.values()):
            server.disconnect()

    def _to_ask(self, failed: Server | None) -> list[Address]:
        """Those that hold something, those of the URL, and those in trouble last."""
        known = dict.fromkeys([*filter(None, self._holders), *self._where.servers])

        def in_trouble(address: Address) -> bool:
            return self.at(address).patience.in_trouble or (failed is not None and failed.address == address)

        return sorted(known, key=in_trouble)

    def _forget_others(self) -> None:
        """Closes what is open to servers that hold nothing any more."""
        for address in set(self._servers) - set(self._holders) - set(self._where.servers):
            self._servers.pop(address).disconnect()


def _holders(reply: Any, asked: str) -> list[Address | None]:
    """The holder of each bucket's slot in a reply to CLUSTER SLOTS. A server may not know how it is called from here:
    then it is the host `asked`."""
    holders: list[Address | None] = [None] * BUCKETS
    for first, last, (host, port, *_), *_ in reply:
        name = (host or b"").decode()
        address = asked if name in ("", "?") else name, int(port)
        for bucket in range(BUCKETS):
            if first <= slot_of(bucket) <= last:
                holders[bucket] = address
    return holders
