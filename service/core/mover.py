"""Moving states: out to the caller, in from elsewhere, along to another client of the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from service.core import moving, standing
from service.core.capacity import Capacity
from service.core.errors import ClientExists, ClientNotFound, ForeignState
from service.core.lifetime import idle_ttl_s
from service.core.locks import ClientLocks
from service.core.moving import Exported
from service.core.ports import Clock, StateStore
from service.core.predictor import Limits
from service.core.record import Record
from service.core.records import Records
from service.core.registry import Registry, Served, ServedModel
from service.core.requests import StateInfo
from service.core.transition import rebuild_reason
from service.core.types import ClientKey, ModelSpec
from service.core.writing import until_saved


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a client stands after its state was brought to it.

    `state` is what its next answer will say of it. `created`: there was no such client. `repeated`: the very same
    was brought before and nothing has happened since; nothing moved this time.
    """

    spec: ModelSpec
    client: str
    step: int
    fingerprint: str
    state: StateInfo
    created: bool
    repeated: bool = False


class Mover:
    """Exports, imports and forks whole states. Every refusal is a RecurveError and leaves all clients as they were.

    `locks` and `capacity` are those of the predictor beside it: writers of one client take turns, whoever they are.
    """

    def __init__(
        self,
        registry: Registry,
        store: StateStore,
        locks: ClientLocks,
        capacity: Capacity,
        clock: Clock = time.time,
        limits: Limits | None = None,
    ) -> None:
        self._registry = registry
        self._records = Records(store, clock)
        self._locks = locks
        self._capacity = capacity
        self._clock = clock
        self._limits = limits if limits is not None else Limits()

    def export_state(self, key: ClientKey) -> Exported:
        """The client's state as it stands, expired or not. ClientNotFound if nothing that reads is kept."""
        _, record, _, served, _ = standing.find(self._registry, self._records, key)
        features, targets = moving.names(served.spec)
        return Exported(key.model, key.client, features, targets, moving.without_shadow(record, served.spec))

    def import_state(
        self, key: ClientKey, exported: Exported, *, rebuild: bool = False, overwrite: bool = False
    ) -> Moved:
        """Make `exported` the state of `key`, whatever client it was of.

        ForeignState if other weights made it than would serve it here: with `rebuild` it is kept as it came, and the
        client's next step rebuilds it from its context. ClientExists if there is such a client and not `overwrite`.
        InvalidInput naming what is wrong, Unsupported if the state can't be rebuilt, AtCapacity, Contended.
        The same import again, before the client has moved on or expired, is answered again.
        """
        model = self._registry.model(key.model)
        spec, now = model.labelled().spec, self._clock()
        moving.check_names(exported, spec)
        moving.check_record(exported.record, spec, now)

        def arrival(current: ServedModel) -> _Arrival:
            moving.check_sizes(exported.record.tracks[0], current)
            return _arrival(current, moving.imported(exported.record, current, now), rebuild=rebuild)

        return self._bring(key, model, arrival, overwrite=overwrite)

    def fork(self, key: ClientKey, to: str) -> Moved:
        """Copy the client's state to a new client `to` of the same model; ClientExists if there is one.

        ClientNotFound if nothing is kept, or the state has expired.
        The copy goes on from the same step under the same label. Requests sent to the original are unknown to it: a
        repeated one is told by its step or time, not answered again. The same fork again is answered again.
        """
        _, record, model, served, _ = standing.find(self._registry, self._records, key)
        if self._is_expired(record, served):
            raise ClientNotFound(key.model, key.client, record.touched)
        copy, target = moving.forked(record, self._clock()), key._replace(client=to)

        def arrival(current: ServedModel) -> _Arrival:
            return _arrival(current, copy, rebuild=True)

        return self._bring(target, model, arrival, overwrite=False)

    # -- parts --------------------------------------------------------------------------------------------------

    def _is_expired(self, record: Record, served: Served) -> bool:
        return self._clock() - record.touched > idle_ttl_s(self._limits.idle_ttl_s, served.spec)

    def _bring(
        self, key: ClientKey, model: ServedModel, arrival: Callable[[ServedModel], _Arrival], *, overwrite: bool
    ) -> Moved:
        """Keep what arrives under `key`, with compare-and-set; over what is there only if `overwrite`."""

        def attempt() -> Moved | None:
            stored, there = self._records.load(key, model.labelled().spec)
            known = there if isinstance(there, Record) else None
            current = model if known is None else self._registry.at_least(model, known.generation)
            record, served, info = arrival(current)
            repeated = known is not None and moving.is_same(known, record, key) and not self._is_expired(known, served)
            if not repeated:
                if stored is None:
                    self._capacity.check(key.tenant, key.model)
                elif not overwrite:
                    raise ClientExists(key.model, key.client)
                if not self._records.save(key, stored, record):
                    return None
                if stored is None:
                    self._capacity.add(key.tenant, key.model, 1)
            made_by = record.tracks[0].fingerprint
            return Moved(served.spec, key.client, record.step, made_by, info, stored is None, repeated)

        return until_saved(self._locks, key, attempt, self._limits.contention_s)


class _Arrival(NamedTuple):
    """A record about to be kept, who will step it, and what the answer will say of its state."""

    record: Record
    served: Served
    info: StateInfo


def _arrival(model: ServedModel, record: Record, *, rebuild: bool) -> _Arrival:
    """ForeignState unless the weights are those that would serve it, or `rebuild`. Rebuilding is tried at once."""
    served, fell_back = standing.version_for(model, record)
    made_by = record.tracks[0].fingerprint
    if made_by != served.spec.fingerprint and not rebuild:
        raise ForeignState(model.name, made_by, served.spec.version, served.spec.fingerprint)
    return _Arrival(record, served, standing.state_now(served, record, rebuild_reason(fell_back))[2])
