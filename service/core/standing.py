"""Where a client stands, read without moving it."""

from __future__ import annotations

import numpy as np

from service.core.absorb import fresh, rebuild
from service.core.errors import Unsupported
from service.core.lookahead import fed_back
from service.core.record import Record
from service.core.registry import Served
from service.core.requests import ClientView, GateTrace, StateInfo
from service.core.scoring import summary
from service.core.types import ClientKey, FloatArray


def state_now(served: Served, record: Record, reason: str) -> tuple[FloatArray, FloatArray, StateInfo]:
    """State (S,) and standing prediction (K, W) under the served weights, rebuilt in passing where they differ."""
    track = record.tracks[0]
    if track.fingerprint == served.spec.fingerprint:
        return track.state, track.y, StateInfo("carried", None, record.behind)
    progress = rebuild(served.spec, served.engine, record.context, reason)
    if progress.y is None:
        detail = f"version {served.spec.version} can't follow the client's past; its next observation restarts it"
        raise Unsupported(detail)
    return progress.batch[0], progress.y, StateInfo("rebuilt", reason, progress.behind)


def view(key: ClientKey, served: Served, version: int | None, record: Record, size: int, ttl_s: float) -> ClientView:
    """What is known of the client; `version` is the one its state was made by, `size` its record's bytes."""
    return ClientView(
        model=key.model,
        client=key.client,
        label=record.label,
        version=version,
        fingerprint=record.tracks[0].fingerprint,
        step=record.step,
        context=record.behind,
        context_kept=len(record.context),
        last_time=None if np.isnan(record.last_time) else record.last_time,
        created=record.created,
        touched=record.touched,
        expires=record.touched + ttl_s,
        record_bytes=size,
        scored=record.live.scored,
        live=summary(served.spec, record.live),
    )


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
