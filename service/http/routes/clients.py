"""Clients: inspect, pin, forget, list, look at the gates, forget many."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.core import bulk
from service.core.errors import ClientNotFound, InvalidInput
from service.http import render
from service.http.body import read_body
from service.http.context import Collaborators, check_query, client_key, tenant
from service.http.output import json_response
from service.http.routes import states
from service.http.schemas import PinBody, decode_small, query_flag, query_int

PAGE, PAGE_MAX = 100, 1000
GATES, GATES_MAX = 48, 512  # 512 is the longest context a bundle may have


def blueprint(deps: Collaborators) -> Blueprint:
    """`…/clients` of a model and all beneath that does not predict."""
    routes = Blueprint("clients", __name__)

    @routes.get("/v1/models/<model>/clients")
    def listing(model: str) -> Response:
        check_query(request.environ, "prefix", "after", "limit")
        query = request.args
        limit = query_int(query, "limit", PAGE, 1, PAGE_MAX)
        page = bulk.matching(deps.predictor, tenant(), model, query.get("prefix", ""), query.get("after"), limit)
        return json_response({"model": model, "clients": page.clients, "next": page.cursor})

    @routes.delete("/v1/models/<model>/clients")
    def forget_matching(model: str) -> Response:
        check_query(request.environ, "prefix", "all", "after")
        query = request.args
        prefix, everyone = query.get("prefix"), query_flag(query, "all")
        if prefix is None or (prefix == "") is not everyone:
            raise InvalidInput("prefix", "must say whose names to forget; prefix=&all=true forgets every client")
        forgotten = bulk.forget_matching(deps.predictor, tenant(), model, prefix, query.get("after"))
        return json_response({"model": model, "deleted": forgotten.deleted, "next": forgotten.cursor})

    @routes.get("/v1/models/<model>/clients/<client>")
    def inspect(model: str, client: str) -> Response:
        check_query(request.environ)
        return json_response(render.client(deps.predictor.inspect(client_key(model, client))))

    @routes.put("/v1/models/<model>/clients/<client>")
    def pin(model: str, client: str) -> Response:
        key, environ = client_key(model, client), request.environ
        check_query(environ)
        deps.registry.model(model)  # before the body is read
        label = decode_small(PinBody, read_body(environ, deps.limits.max_body_bytes)).label
        deps.pinner.pin(key, label)
        return json_response(render.client(deps.predictor.inspect(key)))

    @routes.delete("/v1/models/<model>/clients/<client>")
    def forget(model: str, client: str) -> Response:
        check_query(request.environ)
        if not deps.predictor.forget(client_key(model, client)):
            raise ClientNotFound(model, client)
        return Response(status=204)

    @routes.get("/v1/models/<model>/clients/<client>/gates")
    def gates(model: str, client: str) -> Response:
        check_query(request.environ, "last")
        last = query_int(request.args, "last", GATES, 1, GATES_MAX)
        return json_response(render.gates(deps.predictor.gates(client_key(model, client), last)))

    states.add(routes, deps)
    return routes
