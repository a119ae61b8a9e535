"""Asking Redis for as long as a second, whatever happens to it meanwhile, and then saying that it is away."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from service.core.errors import StoreUnavailable
from service.core.patience import give_way
from service.stores.redis_advice import advise
from service.stores.redis_route import Cluster, Route, Single
from service.stores.redis_server import Address, Command, NotSent, Server
from service.stores.redis_url import Whereabouts

TRY_S = 0.6  # no attempt begins later; one takes up to TIMEOUT_S
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2
_TOGETHER_BYTES = 4 * 2**20  # sent at once: within a timeout over most networks
_REDIRECTIONS = 8  # one after another, without a pause

# Refusals that pass while a server starts, a Cluster or a failover sorts itself out; the command had no effect.
_NOT_NOW = (BusyLoadingError, ReadOnlyError, ClusterDownError, TryAgainError)


class Reply(NamedTuple):
    """What a command answered. `repeated`: it was sent before, and that time it may have had its effect."""

    value: Any
    repeated: bool


class Calls:
    """Sends each command to the server that holds its bucket; any thread.

    Commands must be such that a repetition does no harm: one whose reply is lost is sent again. StoreUnavailable after
    about a second without success, and from then on at once, until one that was tried anew succeeds. It says `in_doubt`
    of a script that was sent and may have had its effect, or have it yet.
    """

    def __init__(self, where: Whereabouts) -> None:
        self._route: Route = Cluster(where) if where.cluster else Single(where)
        self.closed = False

    def call(self, bucket: int, *command: str | bytes | int) -> Reply:
        """The reply to a command about `bucket`."""
        give_way()  # the other end may take its time, and once a save is sent it is too late to give way
        return self._call(bucket, command, repeated=False)

    def call_each(self, commands: Sequence[tuple[int, Command]]) -> list[Reply]:
        """The replies to several commands, each with its bucket; those for one server are sent together.

        Those that have none then, or a refusal, are sent one by one, each as `call` does.
        """
        give_way()
        replies: dict[int, Any] = {}
        lost: set[int] = set()
        together: dict[Server, list[int]] = defaultdict(list)
        for place, (bucket, _) in enumerate(commands):
            server = self._route.server(bucket)
            if server is not None and not self.closed and not server.outage.in_progress:
                together[server].append(place)
        for server, places in together.items():
            for bundle in _bundles(places, commands):
                try:
                    replies.update(zip(bundle, server.call_all([commands[place][1] for place in bundle]), strict=True))
                    _greet(server)
                except RedisError as error:
                    if not isinstance(error, NotSent):
                        lost.update(bundle)
                    break  # the rest of this server's is sent one by one
        return [
            self._call(*commands[place], repeated=place in lost)
            if place not in replies or isinstance(replies[place], RedisError)
            else Reply(replies[place], False)
            for place in range(len(commands))
        ]

    def close(self) -> None:
        """Gives all connections back; later calls raise StoreUnavailable."""
        self.closed = True
        self._route.close()

    def _call(self, bucket: int, command: Command, *, repeated: bool) -> Reply:
        end, pause, redirections = time.monotonic() + TRY_S, _FIRST_PAUSE_S, 0

        def unavailable(why: str) -> StoreUnavailable:
            if repeated and command[0] == "EVAL":
                return StoreUnavailable(f"{why}; it may be stored yet", in_doubt=True)
            return StoreUnavailable(why)

        while True:
            if self.closed:
                raise unavailable("the store is closed")
            server = self._route.server(bucket)
            outage = self._route.outage if server is None else server.outage
            trial = outage.ask()
            if trial is False:
                raise unavailable(f"{outage.why}; it is tried again every second")
            try:
                server = server or self._find(bucket, end)
                value = self._send(server, command)
                outage.succeeded()
                return Reply(value, repeated)
            except MovedError as error:
                redirections += 1
                failure: RedisError = error
                self._route.moved(bucket, _address(error, server))
                if redirections < _REDIRECTIONS:
                    continue
            except _NOT_NOW as error:
                failure = error
                if server is not None and isinstance(error, ReadOnlyError):
                    server.disconnect()  # its name may be that of another server by now
            except ResponseError as error:
                outage.succeeded()
                raise unavailable(_refusal(error)) from error
            except RedisError as error:
                failure, repeated = error, repeated or not isinstance(error, NotSent)
            self._route.refresh(end, server)
            if trial or time.monotonic() + pause >= end:
                if not isinstance(failure, TryAgainError):  # which is about a few keys, not the server
                    outage.failed(_absence(failure), trial=bool(trial))
                raise unavailable(_absence(failure)) from failure
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _find(self, bucket: int, end: float) -> Server:
        """Who holds a bucket of which nothing was known."""
        self._route.refresh(end, None)
        server = self._route.server(bucket)
        if server is None:
            raise ClusterDownError(self._route.trouble or "no server holds this part of the Cluster")
        return server

    def _send(self, server: Server, command: Command) -> Any:
        """One attempt. A slot that is just being moved is asked for where it goes, this once."""
        try:
            value = server.call(command)
        except MovedError:
            raise
        except AskError as error:
            return self._route.at(_address(error, server)).call_asking(command)
        _greet(server)
        return value


def _bundles(places: Sequence[int], commands: Sequence[tuple[int, Command]]) -> Iterator[list[int]]:
    """The places of commands, as many together as are sent at once."""
    bundle: list[int] = []
    size = 0
    for place in places:
        more = sum(len(word) for word in commands[place][1] if not isinstance(word, int))
        if bundle and size + more > _TOGETHER_BYTES:
            yield bundle
            bundle, size = [], 0
        bundle.append(place)
        size += more
    if bundle:
        yield bundle


def _greet(server: Server) -> None:
    if not server.greeted:
        server.greeted = True
        advise(server)


def _address(error: AskError, server: Server | None) -> Address:
    """Where a redirection points to. An empty host is that of the server that redirects."""
    return error.host or ("" if server is None else server.address[0]), error.port


def _absence(error: RedisError) -> str:
    return f"the store can't be reached or does not serve now ({error})"


def _refusal(error: ResponseError) -> str:
    if isinstance(error, OutOfMemoryError):
        return f"the store's memory is full ({error}); it goes on once there is room"
    return f"the store refuses it ({error})"
