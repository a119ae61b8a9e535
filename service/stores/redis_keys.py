"""Where a client's record lies in Redis, and the scripts that change it.

Clients are spread over 256 buckets by a hash of their path. A bucket has one hash tag, so everything in it lies in one
slot of a Cluster, on one server: its records and its index, a sorted set of the paths of its records. A script changes
both at once, so the index is never wrong, and what it answers (a listing, a count, a scan) does not depend on which
server holds the bucket now, as SCAN's cursors do.

A record is a string: its last eight nonces, the newest first, then the blob. The nonces before the newest are for a
save whose reply was lost while others wrote on: whether it was stored is known only from them.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache, lru_cache
from hashlib import blake2b
from typing import NamedTuple

from service.core.types import ClientKey

BUCKETS = 256
SLOTS = 16384  # of every Cluster
NONCE = 8  # bytes
NONCES = 8 * NONCE  # bytes at the start of each record: NONCES and the scripts' 55 and 56 belong together

_PREFIX = "recurve:1"  # the number is this layout's version

# Each script answers 1 if what it asks for holds now. None writes if it held before, so that a repetition after a lost
# reply is answered even by a server that takes no writes. They run on Redis 7 and later, and on Valkey.

SAVE = """
local kept = redis.call('GETRANGE', KEYS[1], 0, 55)
local found = string.sub(kept, 1, 8)
if found == ARGV[2] then return 1 end
if found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2] .. kept .. string.rep('\\0', 56 - #kept) .. ARGV[3])
return 1
"""  # record | old nonce, new nonce, blob. A record cut within its nonces is filled up: what follows has its place

CREATE = """
local found = redis.call('GETRANGE', KEYS[1], 0, 7)
if found == ARGV[1] then return 1 end
if found ~= '' then return 0 end
redis.call('ZADD', KEYS[2], 0, ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. string.rep('\\0', 56) .. ARGV[2])
return 1
"""  # record, index | nonce, blob, path

DELETE = """
local found = redis.call('GETRANGE', KEYS[1], 0, 7)
if found == '' then return 0 end
if found ~= ARGV[1] then return -1 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
"""  # record, index | nonce, path; 0: there is no record, -1: it has another nonce


class Place(NamedTuple):
    """Where a client's record is: its bucket and the names of two keys in Redis."""

    bucket: int
    record_key: str
    index_key: str
    path: str


@lru_cache(maxsize=4096)
def place_of(key: ClientKey) -> Place:
    """The place of a client's record. Cached, because every request asks twice."""
    path = key.path()
    bucket = int.from_bytes(blake2b(path.encode(), digest_size=8).digest()) % BUCKETS
    return Place(bucket, record_key(bucket, path), index_key(bucket), path)


def record_key(bucket: int, path: str) -> str:
    """The key of the record under `path`, a percent-encoded text: it holds no brace, the bucket's are the first."""
    return f"{index_key(bucket)}:{path}"


def index_key(bucket: int) -> str:
    """The key of a bucket's index."""
    return f"{_PREFIX}:{{{_tags()[bucket]}}}"


def slot_of(bucket: int) -> int:
    """The slot that all keys of a bucket are in."""
    return _slot(_tags()[bucket])


@cache
def _tags() -> tuple[str, ...]:
    """A hash tag for each bucket: the smallest number whose slot is in the bucket's share of the slots, so that servers
    with as many slots have as many buckets."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < BUCKETS:
        tag = str(number)
        found.setdefault(_slot(tag) * BUCKETS // SLOTS, tag)
        number += 1
    return tuple(found[bucket] for bucket in range(BUCKETS))


def _slot(tag: str) -> int:
    return crc_hqx(tag.encode(), 0) % SLOTS  # redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec
