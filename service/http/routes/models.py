"""Models: what is served here, and each version's manifest."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.core.errors import EvidenceNotFound
from service.http import render
from service.http.context import Collaborators, check_query
from service.http.output import json_response


def blueprint(deps: Collaborators) -> Blueprint:
    """`/v1/models` and all beneath that needs no client."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models")
    def listing() -> Response:
        check_query(request.environ)
        models = deps.registry.models
        return json_response({"models": [render.model(models[name]) for name in sorted(models)]})

    @routes.get("/v1/models/<model>")
    def model(model: str) -> Response:
        check_query(request.environ)
        return json_response(render.model(deps.registry.model(model)))

    @routes.get("/v1/models/<model>/versions/<int:number>")
    def version(model: str, number: int) -> Response:
        check_query(request.environ)
        return json_response(render.version(deps.registry.model(model).version(number)))

    @routes.get("/v1/models/<model>/versions/<int:number>/evidence")
    def evidence(model: str, number: int) -> Response:
        check_query(request.environ)
        deps.registry.model(model)
        found = deps.evidence(model, number)
        if found is None:
            raise EvidenceNotFound(model, number)
        return json_response(found)

    return routes
