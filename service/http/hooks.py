"""Flask's hooks: the same around every request that Flask routes."""

from __future__ import annotations

from flask import Flask, Response, request

from service.http.around import HEADER, Around
from service.http.errors import problem


def register(app: Flask, around: Around) -> None:
    """Puts `around` on `app`."""

    @app.before_request
    def begin() -> Response | None:
        environ = request.environ
        around.begin(environ)
        raw = environ.get("RAW_URI", "")
        if not raw.isascii():
            # a server makes characters of such bytes in its own way: it would be another client than its escaped twin
            return problem(400, "Bad Request", "the path holds bytes that are not ASCII; send them as %XX")
        if "%" in raw and "%2f" in raw.partition("?")[0].lower():
            # WSGI hands over a decoded path, in which this would be another client's, or another endpoint
            return problem(400, "Bad Request", "a name in the path can't contain '/', not even as %2F")
        return None

    @app.after_request
    def end(response: Response) -> Response:
        rule = request.url_rule
        route = "unknown" if rule is None else rule.rule
        response.headers[HEADER] = around.end(request.environ, route, response.status_code)
        return response
