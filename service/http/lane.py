"""The fast lane: predicts past Flask's routing, contexts and response objects, which took a third of a request.

The endpoint is the same function that Flask's route calls, and so are errors, ids, logs and metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Response

from service.core.errors import RecurveError
from service.http.around import HEADER, Around
from service.http.context import Environ
from service.http.errors import failed, refused
from service.http.output import JSON

ROUTE = "/v1/models/<model>/clients/<client>/predict"
_PATH = re.compile(r"/v1/models/([!-$&-.0-~]+)/clients/([!-$&-.0-~]+)/predict")  # ASCII names that need no decoding

Wsgi = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Predict = Callable[[Environ, str, str], tuple[bytes, bool]]


class Lane:
    """A WSGI application around `app`: answers `POST …/predict` itself where the path is plain ASCII
    and has no query, which it does not take."""

    def __init__(self, app: Wsgi, predict: Predict, around: Around) -> None:
        self._app = app
        self._predict = predict
        self._around = around

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """See PEP 3333."""
        match = _PATH.fullmatch(environ["PATH_INFO"]) if environ["REQUEST_METHOD"] == "POST" else None
        if match is None or environ.get("QUERY_STRING") or "%" in environ.get("RAW_URI", ""):
            return self._app(environ, start_response)
        self._around.begin(environ)
        try:
            body, replayed = self._predict(environ, *match.groups())
        except RecurveError as error:
            return self._problem(refused(error), environ, start_response)
        except Exception as error:  # noqa: BLE001  # the outermost handler; `failed` logs it
            return self._problem(failed(error), environ, start_response)
        headers = [
            ("Content-Type", JSON),
            ("Content-Length", str(len(body))),
            (HEADER, self._around.end(environ, ROUTE, 200)),
        ]
        if replayed:
            headers.append(("Idempotent-Replay", "true"))
        start_response("200 OK", headers)
        return (body,)

    def _problem(self, response: Response, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        response.headers[HEADER] = self._around.end(environ, ROUTE, response.status_code)
        return response(environ, start_response)
