"""Operations: is it alive, is it ready, what does it count."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from service.core.errors import RecurveError
from service.core.types import ClientKey
from service.http.context import Collaborators
from service.http.output import json_response

# Looked up to see whether the store answers; no tenant can have this name, so nothing is ever kept under it.
PROBE = ClientKey("~probe", "readyz", "readyz")


def blueprint(deps: Collaborators) -> Blueprint:
    """`/livez`, `/readyz` and `/metrics`."""
    routes = Blueprint("operations", __name__)

    @routes.get("/livez")
    def livez() -> Response:
        return json_response({"live": True})

    @routes.get("/readyz")
    def readyz() -> Response:
        models = deps.registry.models
        store = _store_trouble(deps)
        ready = bool(models) and store is None
        body: dict[str, Any] = {
            "ready": ready,
            "models": {name: dict(models[name].labels) for name in sorted(models)},
            "store": "ok" if store is None else store,
            "problems": deps.problems(),
        }
        if not models:
            body["reason"] = "no model is loaded yet"
        elif store is not None:
            body["reason"] = "the state store does not answer"
        return json_response(body, 200 if ready else 503)

    @routes.get("/metrics")
    def metrics() -> Response:
        text, content_type = deps.exposition()
        return Response(text, content_type=content_type)

    return routes


def _store_trouble(deps: Collaborators) -> str | None:
    try:
        deps.store.load(PROBE)
    except RecurveError as error:
        return error.detail
    return None
