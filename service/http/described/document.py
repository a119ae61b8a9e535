"""The OpenAPI document: the table of operations, the schemas of bodies and answers, the error table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.core import errors as core
from service.http.described.answers import Problem
from service.http.described.operations import OPERATIONS, ORDER, Operation
from service.http.errors import PROBLEM, STATUS, TITLES

# The server's own refusal has its words beside it, where no application is yet.
SAID = {**TITLES, "stalled": "The body did not arrive in time"}
REF = "#/components/schemas/{model}"
JSON = "application/json"
ABOUT = (
    "Recurve serves recurrent forecasters with memory: a client sends one new observation and gets the next value "
    "predicted; its hidden state is kept in between. Bodies are read as JSON whatever their Content-Type. "
    "Every error is application/problem+json, and nothing has moved when one comes back, unless it says in_doubt."
)

_PATH = {
    "model": {"schema": {"type": "string"}, "description": "The model's name."},
    "client": {
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
        "description": "A name of your own choice: printable characters, no slash.",
    },
    "number": {"schema": {"type": "integer", "minimum": 1}, "description": "The version."},
    "label": {"schema": {"type": "string", "maxLength": 64}, "description": "Such as stable or candidate."},
}


def statuses() -> Mapping[str, int]:
    """The status that each code of the error table comes with."""
    found = {kind.code: int(status) for kind, status in STATUS.items()}
    found |= dict.fromkeys(ORDER, int(STATUS[core.OrderConflict]))
    found["not_finite"] = found[core.InvalidInput.code]
    return found | {"stalled": int(HTTPStatus.REQUEST_TIMEOUT)}


def document() -> dict[str, Any]:
    """This API as an OpenAPI 3.1 document."""
    kinds = {kind for each in OPERATIONS for kind in (each.body, each.answer) if isinstance(kind, type)} | {Problem}
    ordered: list[type[BaseModel]] = sorted(kinds, key=lambda kind: kind.__name__)
    _, schemas = models_json_schema([(kind, "validation") for kind in ordered], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Recurve", "version": "1", "summary": "Forecasters with memory", "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer", "description": "The secret in RECURVE_ADMIN_TOKEN."}
            },
        },
    }


def _operation(said: Operation) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", said.path.removeprefix("/v1").replace("{", "").replace("}", "")).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{said.method.lower()}_{name}",
        "tags": [said.tag],
        "summary": said.summary,
        "parameters": _parameters(said),
        "responses": _responses(said),
    }
    if said.body is not None:
        content: dict[str, Any] = {"schema": _ref(said.body)}
        if said.example is not None:
            content["example"] = said.example
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    if said.admin:
        operation["security"] = [{"admin": []}]
    return operation


def _parameters(said: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **_PATH[name]} for name in re.findall(r"{(\w+)}", said.path)
    ]
    found += [
        {"name": each.name, "in": "query", "description": each.description, "schema": each.schema}
        for each in said.query
    ]
    if said.key:
        protects = "Protects a request without a number as `step` does: sent again, it is answered again."
        schema = {"type": "string", "minLength": 1, "maxLength": 255}
        found.append({"name": "Idempotency-Key", "in": "header", "description": protects, "schema": schema})
    return found


def _responses(said: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Done."}
    if isinstance(said.answer, str):
        good["content"] = {said.answer: {}}
    elif said.answer is not None:
        good["content"] = {JSON: {"schema": _ref(said.answer)}}
    if said.key:
        good["headers"] = {
            "Idempotent-Replay": {"description": "true: the stored answer of a request that was repeated.",
                                  "schema": {"type": "string"}}
        }  # fmt: skip
    responses = {str(said.status): good}
    responses |= {str(status): {**good, "description": why} for status, why in said.also.items()}
    by_status: dict[int, list[str]] = {}
    for code in said.refusals:
        by_status.setdefault(statuses()[code], []).append(code)
    for status, codes in sorted(by_status.items()):
        known = "; ".join(f"`{code}`: {SAID[code]}" for code in codes)
        refusal: dict[str, Any] = {"description": known, "content": {PROBLEM: {"schema": _ref(Problem)}}}
        if status in (429, 503):
            refusal["headers"] = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}}
        responses[str(status)] = refusal
    other = {"description": "Any other error.", "content": {PROBLEM: {"schema": _ref(Problem)}}}
    return responses | {"default": other}


def _ref(kind: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=kind.__name__)}
