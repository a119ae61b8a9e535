"""Records from one place into a store, each whole, none over a newer one; the same again changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, Protocol, TypeVar

from service.core import tombstones
from service.core.errors import RecordCorrupt, StoreUnavailable
from service.core.lease import TENANT as LEASES
from service.core.ports import Entry, Save, SavesMany, Scans, StateStore, Stored
from service.core.quarantine import SET_ASIDE
from service.core.record import decode
from service.core.tombstones import BURIED, stone_key
from service.core.types import ClientKey

Unmoved = Literal["there", "kept"]
Outcome = Literal["moved"] | Unmoved
T = TypeVar("T")

SLICE = 200  # records between two looks at anything else
AT_ONCE = 8
PATIENCE_S = 30.0
_OURS = (BURIED, SET_ASIDE)  # before a tenant's name: what else is kept of its clients


@dataclass(slots=True)
class Tally:
    """What became of the records: brought over, there already, or kept as they were because they are newer."""

    moved: int = 0
    there: int = 0
    kept: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        setattr(self, outcome, getattr(self, outcome) + 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which records: those of one tenant, of one model, None for all."""

    tenant: str | None = None
    model: str | None = None

    def takes(self, key: ClientKey) -> bool:
        """Whether the record under `key` is one of them; what else is kept of its clients goes with a tenant.

        Leases stay: they are claims of processes, over within a minute.
        """
        of = next((key.tenant.removeprefix(mark) for mark in _OURS if key.tenant.startswith(mark)), key.tenant)
        return key.tenant != LEASES and self.tenant in (None, of) and self.model in (None, key.model)


def slices(source: Scans, after: str | None = None, limit: int = SLICE) -> Iterator[tuple[list[Entry], str | None]]:
    """The records of a store, slice by slice, each with the cursor that goes on after it, None after the last."""
    while True:
        found = patiently(partial(source.scan, after, limit))
        after = found.cursor
        yield found.entries, after
        if after is None:
            return


class BulkStore(StateStore, SavesMany, Protocol):
    """A store that saves many at once."""


def bring_all(target: StateStore, entries: Iterable[Entry], tally: Tally, *, replace: bool = False) -> None:
    """`bring` each of some records: a slice at a time where `target` saves many at once, otherwise by several threads,
    as a store that syncs each write syncs those of many at once."""
    if isinstance(target, SavesMany):
        bulk: BulkStore = target
        rest = iter(entries)
        while left := list(islice(rest, SLICE)):
            while left:
                left = _bring_once(bulk, left, tally, replace)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for outcome in pool.map(partial(bring, target, replace=replace), entries):
            tally.add(outcome)


def bring(target: StateStore, entry: Entry, *, replace: bool = False) -> Outcome:
    """Put a record into `target`, nonce and all, with compare-and-set.

    What is there already is left alone unless it is older than `entry`, or `replace`: older by the time the client
    was last heard of, then by its step. Of two that can't be compared, the one that is there stays. A client that has
    no record there, but a tombstone that is newer, stays buried.
    """
    while True:
        stored = patiently(partial(target.load, entry.key))
        stone = None
        if _may_be_buried(entry.key, stored, replace):
            stone = patiently(partial(target.load, stone_key(entry.key)))
        unmoved = _unmoved(entry, stored, stone, replace)
        if unmoved is not None:
            return unmoved
        old = None if stored is None else stored.nonce
        if old == entry.nonce:  # to a store that would be the write it has: it need not write it again
            patiently(partial(target.delete, entry.key, old))
            old = None
        if patiently(partial(target.save, entry.key, old, entry.nonce, entry.blob)):
            return "moved"


def _bring_once(target: BulkStore, entries: list[Entry], tally: Tally, replace: bool) -> list[Entry]:
    """One try to `bring` each; those left over, which others were ahead of, or whose key came before in `entries`."""
    first = {entry.key: entry for entry in reversed(entries)}
    left = [entry for entry in entries if entry is not first[entry.key]]
    saves: list[Save] = []
    kept = dict(zip(first, patiently(partial(target.load_many, list(first))), strict=True))
    gone = [key for key, stored in kept.items() if _may_be_buried(key, stored, replace)]
    stones = dict(zip(gone, patiently(partial(target.load_many, list(map(stone_key, gone)))), strict=True))
    for entry in first.values():
        stored = kept[entry.key]
        unmoved = _unmoved(entry, stored, stones.get(entry.key), replace)
        if unmoved is not None:
            tally.add(unmoved)
        elif stored is not None and stored.nonce == entry.nonce:  # seldom, and it is deleted first: not for long
            tally.add(bring(target, entry, replace=replace))
        else:
            saves.append(Save(entry.key, None if stored is None else stored.nonce, entry.nonce, entry.blob))
    for save, saved in zip(saves, patiently(partial(target.save_many, saves)), strict=True):
        if saved:
            tally.add("moved")
        else:
            left.append(first[save.key])
    return left


def _may_be_buried(key: ClientKey, stored: Stored | None, replace: bool) -> bool:
    """Whether it counts what is left of a client that has no record in the target."""
    return stored is None and not replace and not key.tenant.startswith("~")


def _unmoved(entry: Entry, stored: Stored | None, stone: Stored | None, replace: bool) -> Unmoved | None:
    """Why `entry` is not moved over what is in the target, or beside its tombstone there; None if it is."""
    if stored is None:
        buried = None if stone is None else _age(stone_key(entry.key), stone.blob)
        ours = None if buried is None else _age(entry.key, entry.blob)
        return "kept" if buried is not None and ours is not None and buried > ours else None
    if stored == (entry.nonce, entry.blob):
        return "there"
    return None if replace or _newer(entry, stored) else "kept"


def patiently(call: Callable[[], T], bound_s: float = PATIENCE_S) -> T:
    """What `call` returns, tried again while the store is away, for `bound_s`; then its StoreUnavailable."""
    deadline, wait_s = time.monotonic() + bound_s, 0.1
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() + wait_s > deadline:
                raise
        time.sleep(wait_s)
        wait_s = min(2.0, 2 * wait_s)


def _newer(entry: Entry, stored: Stored) -> bool:
    ours, theirs = _age(entry.key, entry.blob), _age(entry.key, stored.blob)
    if ours is None or theirs is None:
        return ours is not None and stored.nonce == entry.nonce  # the same write, of which theirs is damaged
    return ours > theirs


def _age(key: ClientKey, blob: bytes) -> tuple[float, int] | None:
    """What tells an older record or tombstone from a newer one; None for bytes that are neither."""
    try:
        if key.tenant.startswith(BURIED):
            stone = tombstones.decode(key, blob)
            return stone.touched, stone.step
        record = decode(key, blob)
    except RecordCorrupt:
        return None
    return record.touched, record.step
