"""The API described: for programs as an OpenAPI document, for people as a page."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, Response, request

from service.http.context import check_query
from service.http.output import json_response


def blueprint() -> Blueprint:
    """`/openapi.json` and `/docs`. Both are made when they are first asked for."""
    routes = Blueprint("description", __name__, template_folder="../described/templates")

    @cache
    def document() -> dict[str, Any]:
        from service.http.described.document import document as make  # not at import: most workers are never asked

        return make()

    @cache
    def page() -> tuple[str, str]:
        from service.http.described.page import page as show

        return show(document())

    @routes.get("/openapi.json")
    def openapi() -> Response:
        check_query(request.environ)
        return json_response(document())

    @routes.get("/docs")
    def docs() -> Response:
        check_query(request.environ)
        text, policy = page()
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(text, content_type="text/html; charset=utf-8", headers=headers)

    return routes
