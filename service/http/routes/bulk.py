"""Predicting for many clients in one call: a JSON object with all items, or lines of one item each."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, request

from service.core.errors import InvalidInput
from service.core.patience import give_way
from service.http.body import check_encoding, read_body
from service.http.context import Collaborators, check_query
from service.http.errors import MalformedBody
from service.http.many.call import ManyPredicts
from service.http.many.replay import replay
from service.http.output import JSON, encode
from service.http.sizes import LINES, are_lines


def blueprint(deps: Collaborators) -> Blueprint:
    """`POST /v1/models/{model}/predict`."""
    routes, predicts = Blueprint("bulk", __name__), ManyPredicts(deps)

    @routes.post("/v1/models/<model>/predict")
    def bulk(model: str) -> Response:
        environ = request.environ
        give_way()
        deps.registry.model(model)  # before the body is read
        check_query(environ)
        if are_lines(environ.get("CONTENT_TYPE", "")):
            check_encoding(environ)

            def answer(raw: list[Any], end: bytes) -> bytes:
                return predicts.answer(model, raw, end)

            lines = replay(environ["wsgi.input"].read, answer, deps.limits.max_body_bytes)
            return Response(lines, content_type=LINES)
        raw = _items(read_body(environ, deps.limits.max_body_bytes), deps.limits.max_items)
        answers = predicts.answer(model, raw, b",")
        body = b"".join((b'{"model":', encode(model), b',"results":[', memoryview(answers)[:-1], b"]}"))
        return Response(body, content_type=JSON)

    return routes


def _items(data: bytes, most: int) -> list[Any]:
    """The items of a bulk request's body."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is no JSON: {error}" if data else "the body is empty") from None
    if type(body) is not dict:
        raise MalformedBody("the body must be a JSON object with `items`")
    if unknown := body.keys() - {"items"}:
        raise InvalidInput(min(unknown)[:64], "is no field of this request; it takes items")
    items = body.get("items")
    if type(items) is not list or not items:
        raise InvalidInput("items", "must be a list of one item at least")
    if len(items) > most:
        raise InvalidInput("items", f"are {len(items)}, {most} are the most that one request takes")
    return items
