"""Pinning: the label that a client is served under, changed by its own wish."""

from __future__ import annotations

import time
from dataclasses import replace

from service.core import standing
from service.core.errors import ClientNotFound, InvalidInput
from service.core.lifetime import idle_ttl_s
from service.core.locks import ClientLocks
from service.core.ports import Clock, StateStore
from service.core.predictor import Limits
from service.core.records import Records
from service.core.registry import Registry
from service.core.types import ClientKey
from service.core.writing import until_saved


class Pinner:
    """Puts clients under labels. `locks` are those of the predictor beside it: writers of one client take turns."""

    def __init__(
        self,
        registry: Registry,
        store: StateStore,
        locks: ClientLocks,
        clock: Clock = time.time,
        limits: Limits | None = None,
    ) -> None:
        self._registry = registry
        self._records = Records(store, clock)
        self._locks = locks
        self._clock = clock
        self._limits = limits if limits is not None else Limits()

    def pin(self, key: ClientKey, label: str) -> None:
        """Serve the client under `label` from its next step on; where that names other weights, it is rebuilt then.

        Nothing else of it moves: not its step, nor what a retry is answered. A shadow it had is dropped, so that its
        state is always rebuilt. InvalidInput if the model has no such label, ClientNotFound if nothing is kept or it
        has expired, Contended. The same again changes nothing.
        """

        def attempt() -> bool | None:
            stored, record, model, served, _ = standing.find(self._registry, self._records, key)
            if label not in model.labels:
                known = ", ".join(sorted(model.labels))
                raise InvalidInput("label", f"model {key.model!r} has no label {label[:64]!r}; it has: {known}")
            if self._clock() - record.touched > idle_ttl_s(self._limits.idle_ttl_s, served.spec):
                raise ClientNotFound(key.model, key.client, record.touched)
            if record.label == label:
                return True
            generation = max(record.generation, model.generation)
            pinned = replace(record, label=label, generation=generation, tracks=record.tracks[:1])
            return True if self._records.save(key, stored, pinned) else None

        until_saved(self._locks, key, attempt, self._limits.contention_s)
