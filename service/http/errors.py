"""The error table: every way a request ends badly, as a status and an application/problem+json body (RFC 9457).

`type` names the problem for programs (`about:blank` where HTTP's own status says all), `code` is its last part,
`error` repeats `detail` for clients of other protocols. What an error carries beside its detail rides along:
`expected_step`, `field` and the like.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from service.core import errors as core
from service.http.output import json_response
from service.logs import request_id

log = logging.getLogger("recurve.http")

PROBLEM = "application/problem+json"


class MalformedBody(core.RecurveError):
    """The body is not the JSON object that is asked for."""

    code = "malformed_body"


class BodyTooLarge(core.RecurveError):
    """The body is larger than this endpoint takes."""

    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes", limit=limit)


class BodyEncoded(core.RecurveError):
    """The body is compressed."""

    code = "body_encoded"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"the body comes with Content-Encoding {encoding[:40]!r}; send it as it is")


class NotAdmin(core.RecurveError):
    """The caller has not shown the token, or another one."""

    code = "not_admin"

    def __init__(self) -> None:
        super().__init__("this needs the administrator's token: Authorization: Bearer TOKEN")


class NoAdmin(core.RecurveError):
    """No token is set, so that nobody can show it."""

    code = "no_admin"

    def __init__(self) -> None:
        detail = "labels are not moved over HTTP here; start the service with RECURVE_ADMIN_TOKEN set to a secret"
        super().__init__(detail)


# What a kind of error answers. An error is looked up by its class, then by that class's bases.
STATUS: Mapping[type[core.RecurveError], HTTPStatus] = {
    MalformedBody: HTTPStatus.BAD_REQUEST,
    NotAdmin: HTTPStatus.UNAUTHORIZED,
    NoAdmin: HTTPStatus.FORBIDDEN,
    core.ModelNotFound: HTTPStatus.NOT_FOUND,
    core.ClientNotFound: HTTPStatus.NOT_FOUND,
    core.EvidenceNotFound: HTTPStatus.NOT_FOUND,
    core.LabelNotFound: HTTPStatus.NOT_FOUND,
    core.LabelKept: HTTPStatus.CONFLICT,
    core.LabelsMoved: HTTPStatus.CONFLICT,
    core.VersionUnfit: HTTPStatus.CONFLICT,
    core.RepositoryReadOnly: HTTPStatus.CONFLICT,
    core.RepositoryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    core.OrderConflict: HTTPStatus.CONFLICT,
    core.ClientExists: HTTPStatus.CONFLICT,
    core.ForeignState: HTTPStatus.CONFLICT,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BodyEncoded: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    core.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.Unsupported: HTTPStatus.UNPROCESSABLE_ENTITY,
    core.AtCapacity: HTTPStatus.TOO_MANY_REQUESTS,
    core.Contended: HTTPStatus.SERVICE_UNAVAILABLE,
    core.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    core.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    core.BundleInvalid: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.RecordCorrupt: HTTPStatus.INTERNAL_SERVER_ERROR,
    core.RecurveError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

# Problem titles: one short sentence for each code, the same for every occurrence.
TITLES: Mapping[str, str] = {
    "malformed_body": "The body is not a JSON object",
    "model_not_found": "No such model",
    "client_not_found": "No such client",
    "evidence_not_found": "No evidence of that version",
    "not_admin": "The administrator's token is needed",
    "no_admin": "No administrator's token is set",
    "label_not_found": "No such label",
    "label_kept": "This label stays",
    "labels_moved": "The labels have moved since",
    "version_unfit": "The version can't be served",
    "read_only": "The model repository can't be written",
    "repository_unavailable": "The model repository is not available",
    "step_conflict": "The step does not follow the client's last one",
    "key_conflict": "The idempotency key was used for another request",
    "already_absorbed": "These observations are absorbed already",
    "time_conflict": "The time does not follow the client's last one",
    "too_soon": "The observation comes too soon after the last one",
    "gap": "Observations are missing before this one",
    "client_exists": "There is such a client already",
    "foreign_state": "Other weights made this state",
    "body_too_large": "The body is too large",
    "body_encoded": "The body is encoded",
    "invalid": "A value is not valid",
    "not_finite": "A number is not finite",
    "unsupported": "The model can't do this",
    "at_capacity": "No room for a new client",
    "contended": "Others keep writing this client's state",
    "store_unavailable": "The state store is not available",
    "not_ready": "No model is served yet",
}


def status_of(error: core.RecurveError) -> HTTPStatus:
    """The status of the nearest class of `error` that the table knows."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(status: int, title: str, detail: str, code: str | None = None, **extra: Any) -> Response:
    """A problem+json answer. `extra` never overrides the standard members."""
    body = described(status, title, detail, code, **extra)
    current = request_id.get()
    if current is not None:
        body["request_id"] = current
    return json_response(body, status, content_type=PROBLEM)


def described(status: int, title: str, detail: str, code: str | None = None, **extra: Any) -> dict[str, Any]:
    """A problem as an object. `extra` never overrides the standard members."""
    body: dict[str, Any] = {
        **extra,
        "type": "about:blank" if code is None else f"urn:recurve:problem:{code}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "error": detail,
    }
    if code is not None:
        body["code"] = code
    return body


def item_problem(error: Exception) -> dict[str, Any]:
    """The problem of one item among many, `retry_after` in seconds where it is worth sending again."""
    status = status_of(error) if isinstance(error, core.RecurveError) else HTTPStatus.INTERNAL_SERVER_ERROR
    if not isinstance(error, core.RecurveError) or status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("an item failed", exc_info=error)
        return described(status, status.phrase, "the service failed on this item; its log tells why", "internal")
    again = {} if error.retry_after_s is None else {"retry_after": ceil(error.retry_after_s)}
    return described(status, TITLES.get(error.code, status.phrase), error.detail, error.code, **error.extra, **again)


def register(app: Flask) -> None:
    """Makes `app` answer every error as a problem."""
    app.register_error_handler(core.RecurveError, refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, failed)


def refused(error: core.RecurveError) -> Response:
    """The answer to a refusal of the core's."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return failed(error)
    answer = problem(status, TITLES.get(error.code, status.phrase), error.detail, error.code, **error.extra)
    if error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(ceil(error.retry_after_s))
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="recurve"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.warning("refused: %s", error.detail, extra={"code": error.code})
    return answer


def _http(error: HTTPException) -> Response | RequestRedirect:
    if isinstance(error, RequestRedirect):
        return error
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    answer = problem(status, error.name, error.description or error.name)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value
    return answer


def failed(error: Exception) -> Response:
    """The answer where we failed ourselves; the log has the trace."""
    log.error("a request failed", exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(status, status.phrase, "the service failed on this request; its log tells why", "internal")
