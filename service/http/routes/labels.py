"""Labels of a model: which version each names, for an administrator to see and to move."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.core.ports import LabelsNow
from service.http.admin import check_admin
from service.http.body import read_body
from service.http.context import Collaborators, check_query
from service.http.output import json_response
from service.http.schemas import STEP_MAX, LabelBody, decode_small, query_int


def blueprint(deps: Collaborators) -> Blueprint:
    """`/v1/models/{model}/labels` and all beneath."""
    routes = Blueprint("labels", __name__)

    @routes.get("/v1/models/<model>/labels")
    def labels(model: str) -> Response:
        check_admin(request.environ, deps.admin_token)
        check_query(request.environ)
        return _answer(model, deps.labels.labels(model))

    @routes.put("/v1/models/<model>/labels/<label>")
    def move(model: str, label: str) -> Response:
        environ = request.environ
        check_admin(environ, deps.admin_token)
        check_query(environ)
        body = decode_small(LabelBody, read_body(environ, deps.limits.max_body_bytes))
        return _answer(model, deps.labels.move(model, label, body.version, body.generation))

    @routes.delete("/v1/models/<model>/labels/<label>")
    def drop(model: str, label: str) -> Response:
        check_admin(request.environ, deps.admin_token)
        check_query(request.environ, "generation")
        expected = query_int(request.args, "generation", 0, 0, STEP_MAX) if "generation" in request.args else None
        return _answer(model, deps.labels.drop(model, label, expected))

    return routes


def _answer(model: str, now: LabelsNow) -> Response:
    return json_response({"model": model, "generation": now.generation, "labels": dict(now.labels)})
