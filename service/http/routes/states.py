"""States of clients: export, import, fork."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.core.mover import Moved
from service.http import render
from service.http.body import read_body
from service.http.context import Collaborators, check_query, client_key
from service.http.envelope import document, read_document
from service.http.output import json_response
from service.http.schemas import ForkBody, decode_small, query_flag


def add(routes: Blueprint, deps: Collaborators) -> None:
    """`…/state` and `…/fork` of a client."""

    @routes.get("/v1/models/<model>/clients/<client>/state")
    def export_state(model: str, client: str) -> Response:
        check_query(request.environ)
        return json_response(document(deps.mover.export_state(client_key(model, client))))

    @routes.put("/v1/models/<model>/clients/<client>/state")
    def import_state(model: str, client: str) -> Response:
        key, environ = client_key(model, client), request.environ
        check_query(environ, "rebuild", "replace")
        rebuild, replace = (query_flag(request.args, name) for name in ("rebuild", "replace"))
        deps.registry.model(model)  # before the body is read
        exported = read_document(read_body(environ, deps.limits.max_history_bytes))
        return _moved(deps.mover.import_state(key, exported, rebuild=rebuild, overwrite=replace))

    @routes.post("/v1/models/<model>/clients/<client>/fork")
    def fork(model: str, client: str) -> Response:
        key, environ = client_key(model, client), request.environ
        check_query(environ)
        to = decode_small(ForkBody, read_body(environ, deps.limits.max_body_bytes)).to
        return _moved(deps.mover.fork(key, client_key(model, to, "to").client))


def _moved(result: Moved) -> Response:
    response = json_response(render.moved(result), 201 if result.created else 200)
    if result.repeated:
        response.headers["Idempotent-Replay"] = "true"
    return response
