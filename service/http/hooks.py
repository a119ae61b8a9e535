"""Around every request: its id, its log line, its metrics."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from itertools import count

from flask import Flask, Response, request

from service.core.requests import Answer
from service.http.context import ANSWER, BEGAN
from service.http.errors import problem
from service.logs import request_id

access = logging.getLogger("recurve.access")

READY = "/readyz"
HEADER, ENVIRON_KEY = "X-Request-Id", "HTTP_X_REQUEST_ID"
_SANE = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")

# What a finished request tells its observer: route, method, status, seconds, and a predict's answer.
Observer = Callable[[str, str, int, float, Answer | None], None]


def register(app: Flask, observe: Observer, *, access_log: bool, slow_request_s: float) -> None:
    """Puts the hooks on `app`; `observe` is told of every request."""

    prefix, numbers = os.urandom(4).hex(), count()

    @app.before_request
    def begin() -> Response | None:
        environ = request.environ
        environ[BEGAN] = time.perf_counter()
        given = environ.get(ENVIRON_KEY)
        request_id.set(given if given and _SANE.fullmatch(given) else f"{prefix}{next(numbers):08x}")
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
        environ = request.environ
        seconds = time.perf_counter() - environ[BEGAN]
        response.headers[HEADER] = request_id.get() or ""
        rule, status = request.url_rule, response.status_code
        route = "unknown" if rule is None else rule.rule
        observe(route, environ["REQUEST_METHOD"], status, seconds, environ.get(ANSWER))
        slow = seconds > slow_request_s
        failed = status >= 500 and route != READY  # not being ready is no failure, and asked all the time
        if access_log or slow or failed:
            level = logging.WARNING if slow or failed else logging.INFO
            access.log(
                level,
                "slow request" if slow else "request",
                extra={
                    "method": request.method,
                    "path": request.path[:1024],
                    "status": status,
                    "duration_ms": round(seconds * 1000, 3),
                    "remote": request.remote_addr,
                },
            )
        return response
