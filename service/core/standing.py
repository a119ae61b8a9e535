"""Where a client stands, read without moving it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from service.core.absorb import fresh, rebuild
from service.core.errors import ClientNotFound, Unsupported
from service.core.lookahead import fed_back
from service.core.ports import Stored
from service.core.record import Record
from service.core.records import Records
from service.core.registry import Registry, Served, ServedModel
from service.core.requests import Beside, ClientView, GateTrace, StateInfo
from service.core.scoring import summary
from service.core.shadow import PROMOTED, kept
from service.core.types import ClientKey, FloatArray


class Found(NamedTuple):
    """What is kept for a client, and who would serve it; `fell_back`: its label is gone, so it is `stable`."""

    stored: Stored
    record: Record
    model: ServedModel
    served: Served
    fell_back: bool


def find(registry: Registry, records: Records, key: ClientKey) -> Found:
    """The client `key`, expired or not. ClientNotFound if nothing that reads is kept (since when, if swept)."""
    model = registry.model(key.model)
    stored, record = records.load(key, model.labelled().spec)
    if stored is None:
        buried = records.tombstone(key)
        raise ClientNotFound(key.model, key.client, None if buried is None else buried.touched)
    if not isinstance(record, Record):
        raise ClientNotFound(key.model, key.client)
    model = registry.at_least(model, record.generation)
    return Found(stored, record, model, *version_for(model, record))


def version_for(model: ServedModel, record: Record) -> tuple[Served, bool]:
    """The version under the record's label; `stable` if that label is gone, and then True."""
    if record.label in model.labels:
        return model.labelled(record.label), False
    return model.labelled(), True


def state_now(served: Served, record: Record, reason: str) -> tuple[FloatArray, FloatArray, StateInfo]:
    """State (S,) and standing prediction (K, W) under the served weights, rebuilt in passing where there are none."""
    here = kept(record, served.spec)
    if here is not None:
        return here.track.state, here.track.y, StateInfo("carried", PROMOTED if here.second else None, here.behind)
    progress = rebuild(served.spec, served.engine, record.context, reason)
    if progress.y is None:
        detail = f"version {served.spec.version} can't follow the client's past; its next observation restarts it"
        raise Unsupported(detail)
    return progress.batch[0], progress.y, StateInfo("rebuilt", reason, progress.behind)


def view(key: ClientKey, model: ServedModel, served: Served, record: Record, size: int, ttl_s: float) -> ClientView:
    """What is known of the client; `size` is its record's bytes."""
    here = kept(record, served.spec)
    track, behind = (record.tracks[0], record.behind) if here is None else (here.track, here.behind)
    made_by = model.by_fingerprint(track.fingerprint)
    return ClientView(
        model=key.model,
        client=key.client,
        label=record.label,
        version=None if made_by is None else made_by.spec.version,
        fingerprint=track.fingerprint,
        step=record.step,
        context=behind,
        context_kept=len(record.context),
        last_time=None if np.isnan(record.last_time) else record.last_time,
        created=record.created,
        touched=record.touched,
        expires=record.touched + ttl_s,
        record_bytes=size,
        scored=record.live.scored,
        live=summary(served.spec, record.live, track.stretch),
        shadow=None if here is None or here.second else _beside(model, record),
    )


def _beside(model: ServedModel, record: Record) -> Beside | None:
    if len(record.tracks) < 2:
        return None
    track = record.tracks[1]
    steps, total, _, behind = track.sums
    made_by = model.by_fingerprint(track.fingerprint)
    version = None if made_by is None else made_by.spec.version
    mean = total / steps if steps else None
    return Beside(version, track.fingerprint, int(behind) if track.y.size else 0, int(steps), mean)


def trace_gates(key: ClientKey, served: Served, record: Record, last: int) -> GateTrace:
    """Gate activations over the `last` rows of the client's context, all of it replayed from a fresh state."""
    spec, engine = served.spec, served.engine
    progress = fresh(spec, engine, "carried")
    shown = len(record.context) - last
    rows: list[FloatArray] = []
    traces: list[list[FloatArray]] = [[] for _ in spec.gates]
    for i, row in enumerate(record.context):
        x = row[None]
        if np.isnan(row[0]):
            if progress.y is None:  # a missing step before the first observation kept: nothing to fill it with
                continue
            x = fed_back(spec, progress.y)
        if i >= shown:
            rows.append(row)
            for trace, layer in zip(traces, engine.gates(x, progress.batch), strict=True):
                trace.append(layer[0])
        progress.step(x)
    return GateTrace(
        spec=spec,
        client=key.client,
        step=record.step,
        observations=np.asarray(rows, np.float32).reshape(-1, len(spec.features)),
        activations=tuple(
            np.asarray(trace, np.float32).reshape(len(rows), len(gate.names), gate.units)
            for trace, gate in zip(traces, spec.gates, strict=True)
        ),
    )
