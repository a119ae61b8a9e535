"""Request bodies as raw bytes, whatever Content-Type they come with, and never more than is allowed."""

from __future__ import annotations

import time

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from service.http.errors import BodyEncoded, BodyTooLarge

DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_S = 2.0
_PIECE = 64 * 1024


def read_body(limit: int) -> bytes:
    """The body of the request. BodyTooLarge beyond `limit` bytes, declared or sent; BodyEncoded if compressed."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise BodyEncoded(encoding)
    request.max_content_length = limit + 1  # a body of unknown length is cut there, silently
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        data = None
    if data is None or len(data) > limit:
        _drain()
        raise BodyTooLarge(limit)
    return data


def _drain() -> None:
    """Throws away what the client still sends, within bounds.

    Most clients send their whole body before they look for an answer; closing on them would reset the connection
    and lose the answer. What arrives is dropped piece by piece, never kept.
    """
    stream, deadline, left = request.environ["wsgi.input"], time.monotonic() + DRAIN_S, DRAIN_BYTES
    try:
        while left > 0 and time.monotonic() < deadline:
            piece = stream.read(_PIECE)
            if not piece:
                return
            left -= len(piece)
    except OSError:  # the client went away
        return
