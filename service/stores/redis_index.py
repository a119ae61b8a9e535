"""Walking through the buckets' indexes, which name every record in the order of its path."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from service.core.ports import Entry
from service.core.types import ClientKey
from service.stores.redis_calls import Calls
from service.stores.redis_keys import BUCKETS, NONCE, NONCES, index_key, record_key
from service.stores.redis_server import Command

_MORE = 4  # times as many buckets are asked at once, each time that they had too few paths


def paths(calls: Calls, bucket: int, after: str, start: str, end: str, limit: int) -> list[tuple[int, str]]:
    """Up to `limit` paths, each with its bucket: in `bucket` those beyond `after`, in later ones those beyond `start`,
    everywhere up to `end`, a bound as ZRANGEBYLEX takes it."""
    found: list[tuple[int, str]] = []
    many = 1
    while bucket < BUCKETS and len(found) < limit:
        buckets = range(bucket, min(bucket + many, BUCKETS))
        afters = [after, *[start] * (len(buckets) - 1)]
        commands = [(b, _range(b, a, end, limit - len(found))) for b, a in zip(buckets, afters, strict=True)]
        for b, reply in zip(buckets, calls.call_each(commands), strict=True):
            found += [(b, member.decode()) for member in reply.value]
        bucket, after, many = buckets.stop, start, _MORE * many
    return found[:limit]


def entries(calls: Calls, page: Sequence[tuple[int, str]]) -> list[Entry]:
    """The records of some paths with their buckets, those left out that are gone."""
    groups = [(b, [path for _, path in group]) for b, group in groupby(page, key=itemgetter(0))]
    commands = [(b, ("MGET", *(record_key(b, path) for path in group))) for b, group in groups]
    values = [value for reply in calls.call_each(commands) for value in reply.value]
    return [
        Entry(ClientKey.of_path(path), value[:NONCE], value[NONCES:])
        for (_, path), value in zip(page, values, strict=True)
        if value is not None
    ]


def _range(bucket: int, after: str, end: str, limit: int) -> Command:
    return ("ZRANGEBYLEX", index_key(bucket), f"({after}" if after else "-", end, "LIMIT", 0, limit)
