"""What a connection is told that sent no request, or not in time: the service's problem+json, where no app is yet."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from http import HTTPStatus

from service.logs import request_id

log = logging.getLogger("recurve.server")

_SAID = 300  # characters of what is wrong: it may repeat what the client sent


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that ends its connection. `code` names the problem for programs, None where the status says all."""

    status: HTTPStatus
    detail: str
    title: str | None = None
    code: str | None = None
    retry_after_s: int | None = None

    def encode(self) -> bytes:
        """The whole answer, under a request id of its own; it is logged under the same."""
        current = os.urandom(8).hex()
        detail = self.detail[:_SAID]
        problem: dict[str, object] = {
            "type": "about:blank" if self.code is None else f"urn:recurve:problem:{self.code}",
            "title": self.title or self.status.phrase,
            "status": int(self.status),
            "detail": detail,
            "error": detail,
            "request_id": current,
        }
        if self.code is not None:
            problem["code"] = self.code
        previous = request_id.set(current)
        log.info("refused: %s", detail, extra={"status": int(self.status)})
        request_id.reset(previous)
        body = json.dumps(problem).encode()
        later = "" if self.retry_after_s is None else f"Retry-After: {self.retry_after_s}\r\n"
        head = (
            f"HTTP/1.1 {int(self.status)} {self.status.phrase}\r\nConnection: close\r\nX-Request-Id: {current}\r\n"
            f"Content-Type: application/problem+json\r\n{later}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


SLOW_HEAD = Refusal(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
SLOW_BODY = Refusal(
    HTTPStatus.REQUEST_TIMEOUT,
    "the rest of the body did not arrive in time",
    title="The body did not arrive in time",
    code="stalled",
)
LONG_LINE = Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "the request's first line is too long")
LONG_HEAD = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too many or too long")
OTHER_VERSION = Refusal(HTTPStatus.BAD_REQUEST, "only HTTP 1.0 and 1.1 are spoken here")
OTHER_CODING = Refusal(HTTPStatus.NOT_IMPLEMENTED, "the only Transfer-Encoding that is read here is chunked")
OTHER_EXPECTATION = Refusal(HTTPStatus.EXPECTATION_FAILED, "the only expectation that is met here is 100-continue")
FAILED = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed on this request; its log tells why")
NO_ROOM = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "too many large bodies are arriving at once; send it again", retry_after_s=1
)


def unreadable(why: str) -> Refusal:
    """For what is not HTTP; `why` is the parser's word."""
    return Refusal(HTTPStatus.BAD_REQUEST, f"what was sent is no HTTP request: {why}")
