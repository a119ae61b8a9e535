"""`redis://host`: records in Redis or Valkey, one server or a Cluster, shared by any number of machines.

Each change is one script, which compares and writes at once. What is acknowledged survives what the server is set to
survive: with `appendfsync always` any end of it; a failover may take the last writes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

from service.core.errors import StoreUnavailable
from service.core.ports import Page, Save, Scan, Stored
from service.core.types import ClientKey
from service.stores import cursors, redis_index
from service.stores.forks import watch
from service.stores.many import check_distinct
from service.stores.redis_calls import Calls, Reply
from service.stores.redis_keys import BUCKETS, CREATE, DELETE, NONCE, NONCES, SAVE, Place, index_key, place_of
from service.stores.redis_server import Command
from service.stores.redis_url import Whereabouts

_KIND, _SCAN = "r", "r-scan"
_DONE, _ABSENT = 1, 0  # what scripts answer
_DELETE_TRIES = 100


class RedisStore:
    """A StateStore in Redis, with every optional power. Nothing is opened before the first verb, in any process.

    A verb takes up to about a second while Redis is away, and then raises StoreUnavailable; a save that was under way
    just then may still be stored. Those that follow are refused at once, and one a second tries whether it is back.
    """

    def __init__(self, where: Whereabouts) -> None:
        self._where = where
        self._calls = Calls(where)
        watch(self)

    def load(self, key: ClientKey) -> Stored | None:
        place = place_of(key)
        return _stored(self._calls.call(place.bucket, "GET", place.record_key).value)

    def save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes) -> bool:
        """See StateStore.save. A save whose reply is lost is sent again; one that then finds another's nonce looks for
        its own among those before it."""
        place = place_of(key)
        return self._won(self._calls.call(place.bucket, *_saving(place, old, new, blob)), place, old, new)

    def load_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """See SavesMany.load_many. What one server holds is asked of it together."""
        places = [place_of(key) for key in keys]
        replies = self._calls.call_each([(place.bucket, ("GET", place.record_key)) for place in places])
        return [_stored(reply.value) for reply in replies]

    def save_many(self, saves: Sequence[Save]) -> list[bool]:
        """See SavesMany.save_many. A script each, those for one server sent together; then as in `save`."""
        check_distinct(saves)
        placed = [(place_of(save.key), save) for save in saves]
        commands = [(place.bucket, _saving(place, old, new, blob)) for place, (_, old, new, blob) in placed]
        try:
            replies = self._calls.call_each(commands)
            return [
                self._won(reply, place, save.old, save.new)
                for reply, (place, save) in zip(replies, placed, strict=True)
            ]
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{error.detail}; any of them may be stored", in_doubt=True) from error

    def delete(self, key: ClientKey, old: bytes | None = None) -> bool:
        """See StateStore.delete. It always names a nonce, so that one that arrives late deletes no later record."""
        place = place_of(key)
        for _ in range(_DELETE_TRIES):
            nonce = self._nonces(place)[:NONCE] if old is None else old
            if not nonce:
                return False
            command = ("EVAL", DELETE, 2, place.record_key, place.index_key, nonce, place.path)
            reply = self._calls.call(place.bucket, *command)
            if reply.value == _DONE or (reply.value == _ABSENT and reply.repeated):
                return True
            if reply.value == _ABSENT or old is not None:
                return False
        raise StoreUnavailable(f"client {key.client!r} was written by others all the time")

    def list(self, tenant: str, model: str, after: str | None, limit: int) -> Page:
        """Bucket by bucket, in the order of paths: each client is met where it stands, whatever comes or goes."""
        start, end = _bounds(tenant, model)
        bucket, last = (0, "") if after is None else cursors.decode(_KIND, BUCKETS, after)
        found = redis_index.paths(self._calls, bucket, start + quote(last, safe=""), start, end, limit + 1)
        page = [(bucket, unquote(path[len(start) :])) for bucket, path in found[:limit]]
        return Page([client for _, client in page], cursors.encode(_KIND, *page[-1]) if len(found) > limit else None)

    def count(self, tenant: str, model: str) -> int:
        """Exact: the sum of what the buckets' indexes count."""
        start, end = _bounds(tenant, model)
        return self._sum([(b, ("ZLEXCOUNT", index_key(b), f"({start}", end)) for b in range(BUCKETS)])

    def records(self) -> int:
        """Exact: the sum of what the buckets' indexes hold."""
        return self._sum([(b, ("ZCARD", index_key(b))) for b in range(BUCKETS)])

    def scan(self, after: str | None, limit: int) -> Scan:
        """Bucket by bucket, in the order of paths."""
        bucket, last = (0, "") if after is None else cursors.decode(_SCAN, BUCKETS, after)
        found = redis_index.paths(self._calls, bucket, last, "", "+", limit + 1)
        page = found[:limit]
        cursor = cursors.encode(_SCAN, *page[-1]) if len(found) > limit else None
        return Scan(redis_index.entries(self._calls, page), cursor)

    def close(self) -> None:
        self._calls.close()

    def before_fork(self) -> None:
        """For `forks.watch`: nothing to do, the child takes over nothing."""

    def after_fork(self, *, child: bool) -> None:
        """For `forks.watch`: the child has connections, locks and an idea of the servers of its own."""
        if child and not self._calls.closed:
            self._calls = Calls(self._where)

    def _sum(self, commands: Sequence[tuple[int, Command]]) -> int:
        return sum(reply.value for reply in self._calls.call_each(commands))

    def _won(self, reply: Reply, place: Place, old: bytes | None, new: bytes) -> bool:
        """What a save is told after `reply` to its script."""
        return reply.value == _DONE or (reply.repeated and self._was_stored(place, old, new))

    def _was_stored(self, place: Place, old: bytes | None, new: bytes) -> bool:
        """Whether a save on `old` was stored that others have been ahead of, or have written after.

        Only one save on a nonce is ever stored, so where `old` is followed by another's, it was not. StoreUnavailable
        if so many have been stored since that neither is to be seen.
        """
        try:
            kept = self._nonces(place)
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{error.detail}; the save may be stored", in_doubt=True) from error
        nonces = [kept[at : at + NONCE] for at in range(0, len(kept), NONCE)]
        if new in nonces:
            return True
        if old is None or old in nonces or not kept:
            return False
        raise StoreUnavailable("a save's reply was lost, others wrote since: it may be stored", in_doubt=True)

    def _nonces(self, place: Place) -> bytes:
        """The last nonces of a record, one after another, the newest first; nothing where there is no record."""
        nonces: bytes = self._calls.call(place.bucket, "GETRANGE", place.record_key, 0, NONCES - 1).value
        return nonces


def _stored(value: bytes | None) -> Stored | None:
    return None if value is None else Stored(value[:NONCE], value[NONCES:])


def _saving(place: Place, old: bytes | None, new: bytes, blob: bytes | memoryview) -> Command:
    if old is None:
        return ("EVAL", CREATE, 2, place.record_key, place.index_key, new, bytes(blob), place.path)
    return ("EVAL", SAVE, 1, place.record_key, old, new, bytes(blob))


def _bounds(tenant: str, model: str) -> tuple[str, str]:
    """What the paths of a model begin with, and the bound, as ZRANGEBYLEX takes it, before which they have ended."""
    start = ClientKey(tenant, model, "").path()
    return start, f"({start[:-1]}{chr(ord('/') + 1)}"
