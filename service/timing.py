"""The core's ports, timed by wrapping: an engine's steps, a store's verbs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from service.core.errors import StoreUnavailable
from service.core.ports import CountsClients, Engine, Page, Save, SavesMany, Scan, Scans, StateStore, Stored, Walks
from service.core.types import ClientKey, FloatArray
from service.tally import TalliedCounter, TalliedHistogram

P = ParamSpec("P")
T = TypeVar("T")

VERBS = ("load", "save", "delete", "list", "scan", "load_many", "save_many")


class WholeStore(StateStore, CountsClients, Scans, SavesMany, Protocol):
    """A store with every power."""


class TimedEngine:
    """An Engine whose steps are timed."""

    def __init__(self, engine: Engine, step_s: TalliedHistogram) -> None:
        self._engine = engine
        self._step_s = step_s

    def step(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Engine.step."""
        began = time.perf_counter()
        result = self._engine.step(x, state)
        self._step_s.observe(time.perf_counter() - began)
        return result

    def gates(self, x: FloatArray, state: FloatArray) -> Sequence[FloatArray]:
        """See Engine.gates."""
        return self._engine.gates(x, state)

    def close(self) -> None:
        """See Engine.close."""
        self._engine.close()


class WalkingEngine(Engine, Walks, Protocol):
    """An engine with every power."""


class TimedWalkingEngine(TimedEngine):
    """A TimedEngine over one with every power; each step of a walk counts as taking the same time."""

    def __init__(self, engine: WalkingEngine, step_s: TalliedHistogram) -> None:
        super().__init__(engine, step_s)
        self._walking = engine

    def walk(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Walks.walk."""
        began = time.perf_counter()
        result = self._walking.walk(x, state)
        self._step_s.observe_many((time.perf_counter() - began) / len(x), len(x))
        return result


class TimedStore:
    """A StateStore whose verbs are timed, its failures and lost races counted, the sizes of clients' records told."""

    def __init__(
        self,
        store: StateStore,
        verbs: Mapping[str, TimedVerb],
        conflicts: TalliedCounter,
        observe_record: Callable[[str, int, int], None],
    ) -> None:
        self._store = store
        self._observe_record = observe_record
        self._verbs = verbs
        self._load, self._save = verbs["load"], verbs["save"]  # what every request asks for: without TimedVerb's calls
        self._store_load, self._store_save = store.load, store.save
        self._conflicts = conflicts

    def load(self, key: ClientKey) -> Stored | None:
        """See StateStore.load."""
        began = time.perf_counter()
        try:
            return self._store_load(key)
        except StoreUnavailable:
            self._load.errors.inc()
            raise
        finally:
            self._load.seconds.observe(time.perf_counter() - began)

    def save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes) -> bool:
        """See StateStore.save."""
        began = time.perf_counter()
        try:
            saved = self._store_save(key, old, new, blob)
        except StoreUnavailable:
            self._save.errors.inc()
            raise
        finally:
            self._save.seconds.observe(time.perf_counter() - began)
        self._told(key, blob, saved)
        return saved

    def delete(self, key: ClientKey, old: bytes | None = None) -> bool:
        """See StateStore.delete."""
        return self._verbs["delete"].time(self._store.delete, key, old)

    def list(self, tenant: str, model: str, after: str | None, limit: int) -> Page:
        """See StateStore.list."""
        return self._verbs["list"].time(self._store.list, tenant, model, after, limit)

    def close(self) -> None:
        """See StateStore.close."""
        self._store.close()

    def _told(self, key: ClientKey, blob: bytes, saved: bool) -> None:
        if not saved:
            self._conflicts.inc()
        elif not key.tenant.startswith("~"):  # those are ours, no clients' records
            self._observe_record(key.model, len(blob), 1)


class TimedVerb(NamedTuple):
    """Where one verb's times and failures go."""

    seconds: TalliedHistogram
    errors: TalliedCounter

    def time(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns, timed whether it succeeds or not."""
        began = time.perf_counter()
        try:
            return call(*args, **kwargs)
        except StoreUnavailable:
            self.errors.inc()
            raise
        finally:
            self.seconds.observe(time.perf_counter() - began)


class TimedWholeStore(TimedStore):
    """A TimedStore over a store with every power."""

    def __init__(
        self,
        store: WholeStore,
        verbs: Mapping[str, TimedVerb],
        conflicts: TalliedCounter,
        observe_record: Callable[[str, int, int], None],
    ) -> None:
        super().__init__(store, verbs, conflicts, observe_record)
        self._whole = store

    def count(self, tenant: str, model: str) -> int:
        """See CountsClients.count."""
        return self._whole.count(tenant, model)

    def scan(self, after: str | None, limit: int) -> Scan:
        """See Scans.scan."""
        return self._verbs["scan"].time(self._whole.scan, after, limit)

    def load_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """See SavesMany.load_many."""
        return self._verbs["load_many"].time(self._whole.load_many, keys)

    def save_many(self, saves: Sequence[Save]) -> list[bool]:
        """See SavesMany.save_many."""
        answers = self._verbs["save_many"].time(self._whole.save_many, saves)
        told = saves if all(answers) else [save for save, saved in zip(saves, answers, strict=True) if saved]
        for (tenant, model), some in _by_model(told).items():
            if not tenant.startswith("~"):
                for size, times in Counter(map(len, map(itemgetter(3), some))).items():
                    self._observe_record(model, size, times)
        lost = len(answers) - len(told)
        if lost:
            self._conflicts.add(lost)
        return answers


def _by_model(saves: Sequence[Save]) -> Mapping[tuple[str, str], Sequence[Save]]:
    """Saves by tenant and model: as a rule all are of one."""
    models = list(map(itemgetter(slice(2)), map(itemgetter(0), saves)))
    if len(set(models)) == 1:
        return {models[0]: saves}
    found: dict[tuple[str, str], list[Save]] = {}
    for model, save in zip(models, saves, strict=True):
        found.setdefault(model, []).append(save)
    return found
