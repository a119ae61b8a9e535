"""Answers of the core as JSON objects: the vocabulary's nouns, raw units, null where there is no number."""

from __future__ import annotations

import math
from itertools import repeat
from typing import Any

import numpy as np

from service.core.mover import Moved
from service.core.registry import Served, ServedModel
from service.core.requests import Answer, ClientView, GateTrace, Previous
from service.core.types import FloatArray, ModelSpec
from service.http.times import iso_time

_NO_BOUNDS = repeat(math.nan), repeat(math.nan)
_NOT_SCORED = repeat(None)


def answer(result: Answer, *, every: bool = False) -> dict[str, Any]:
    """A predict's, a priming's or a forecast's answer; with `every`, one prediction per observation as well."""
    spec, version, name, step, y, interval, ahead, previous, state, level, *_ = result
    body: dict[str, Any] = {
        "model": spec.name,
        "version": version,
        "client": name,
        "step": step,
        "prediction": _prediction(spec, level, y[-1], None if interval is None else interval[-1]),
        "previous": None if previous is None else _previous(spec, previous),
        "state": {
            "status": state.status,
            "reason": state.reason,
            "context": state.context,
            "filled": state.filled,
        },
    }
    if state.last_seen is not None:
        body["state"]["last_seen"] = iso_time(state.last_seen)
    if ahead is not None:
        body["forecast"] = [
            {"horizon": h, "prediction": _prediction(spec, level, row, row[:, 1:])} for h, row in enumerate(ahead, 1)
        ]
    if every:
        first = step - len(y) + 1
        body["predictions"] = [
            {
                "step": first + i,
                "prediction": _prediction(spec, level, row, None if interval is None else interval[i]),
            }
            for i, row in enumerate(y)
        ]
    return body


def client(view: ClientView) -> dict[str, Any]:
    """What is known of a client; `shadow` only while it is shadowed."""
    body: dict[str, Any] = {
        "model": view.model,
        "client": view.client,
        "label": view.label,
        "version": view.version,
        "fingerprint": view.fingerprint,
        "step": view.step,
        "context": view.context,
        "context_kept": view.context_kept,
        "last_time": iso_time(view.last_time),
        "created": iso_time(view.created),
        "touched": iso_time(view.touched),
        "expires": iso_time(view.expires),
        "record_bytes": view.record_bytes,
        "scored": view.scored,
        "live": {
            live.target: {
                "mae": live.mae,
                "rmse": live.rmse,
                "naive_rmse": live.naive_rmse,
                "skill": live.skill,
                "coverage": live.coverage,
                "factor": live.factor,
            }
            for live in view.live
        },
    }
    if view.shadow is not None:
        beside = view.shadow
        body["shadow"] = {
            "version": beside.version,
            "fingerprint": beside.fingerprint,
            "context": beside.context,
            "compared": beside.compared,
            "mean": beside.mean,
        }
    return body


def moved(result: Moved) -> dict[str, Any]:
    """Where a client stands whose state was brought there; `state` is what its next answer will say of it."""
    state = result.state
    return {
        "model": result.spec.name,
        "version": result.spec.version,
        "client": result.client,
        "fingerprint": result.fingerprint,
        "step": result.step,
        "state": {"status": state.status, "reason": state.reason, "context": state.context, "filled": state.filled},
    }


def gates(trace: GateTrace) -> dict[str, Any]:
    """Gate activations, oldest observation first: each gate a list per observation of one number per unit."""
    spec = trace.spec
    return {
        "model": spec.name,
        "version": spec.version,
        "client": trace.client,
        "step": trace.step,
        "features": [feature.name for feature in spec.features],
        "observations": np.ascontiguousarray(trace.observations),
        "layers": [
            {
                "layer": gate.layer,
                "cell": gate.cell,
                "units": gate.units,
                "gates": {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(gate.names)},
            }
            for gate, values in zip(spec.gates, trace.activations, strict=True)
        ],
    }


def model(served: ServedModel) -> dict[str, Any]:
    """A model as it is served: its labels, and what its stable version promises."""
    stable = served.labelled()
    spec = stable.spec
    return {
        "name": served.name,
        "labels": dict(served.labels),
        "generation": served.generation,
        "versions": sorted(served.versions),
        "version": spec.version,
        "fingerprint": spec.fingerprint,
        "architecture": spec.architecture,
        "features": [
            {"name": f.name, "unit": f.unit, "minimum": f.minimum, "maximum": f.maximum} for f in spec.features
        ],
        "targets": [{"name": t.name, "unit": t.unit, "scale": t.scale} for t in spec.targets],
        "interval_s": spec.interval_s,
        "level": spec.level,
        "context_length": spec.context_length,
        "looks_ahead": spec.feedback is not None,
    }


def version(served: Served) -> dict[str, Any]:
    """A version's manifest, as it was published, with its number."""
    return {"version": served.spec.version, "manifest": dict(served.manifest)}


def _prediction(spec: ModelSpec, level: float | None, y: FloatArray, interval: FloatArray | None) -> dict[str, Any]:
    """``y`` (K, 1 + Q) or (K, 3), ``interval`` (K, 2) or None -> one object per target."""
    lowers, uppers = _NO_BOUNDS if interval is None else (interval[:, 0], interval[:, 1])
    targets = {}
    for target, value, lower, upper in zip(spec.targets, y[:, 0], lowers, uppers, strict=False):  # see _previous
        bounds = None
        if lower == lower:  # NaN: the model has no bounds
            bounds = {"level": level, "lower": lower, "upper": upper}
        targets[target.name] = {"value": value, "interval": bounds, "unit": target.unit}
    return targets


def _previous(spec: ModelSpec, previous: Previous) -> dict[str, Any]:
    # an array that is iterated to its end makes an error there, which takes as long as all else: targets end first
    predicted, observed, anomaly = previous
    scores = _NOT_SCORED if anomaly is None else anomaly
    return {
        target.name: {"predicted": told, "observed": seen, "error": seen - told, "anomaly": score}
        for target, told, seen, score in zip(spec.targets, predicted, observed, scores, strict=False)
    }
