"""Request bodies as raw bytes, whatever Content-Type they come with, and never more than is allowed."""

from __future__ import annotations

import time
from typing import Any

from service.http.context import Environ
from service.http.errors import BodyEncoded, BodyStalled, BodyTooLarge, MalformedBody

DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_S = 2.0
_PIECE = 64 * 1024


def read_body(environ: Environ, limit: int) -> bytes:
    """The request's body. BodyTooLarge beyond `limit` bytes, declared or sent; BodyEncoded if compressed."""
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding.lower() != "identity":
        raise BodyEncoded(encoding)
    declared = environ.get("CONTENT_LENGTH")
    length = int(declared) if declared and declared.isdecimal() else None
    # one byte more than the limit is asked for where the length is unknown: then the limit is seen to be passed
    data = b"" if length is not None and length > limit else _read(environ, limit + 1 if length is None else length)
    if len(data) > limit or (length is not None and length > limit):
        raise BodyTooLarge(limit)
    if length is not None and len(data) < length:
        raise MalformedBody(f"the body ended after {len(data)} of {length} bytes")
    return data


def drain(environ: Environ) -> None:
    """Throws away what the client still sends of a refused body, within bounds; nothing to do where it is read.

    Most clients send their whole body before they look for an answer; closing on them would reset the connection
    and lose the answer. What arrives is dropped piece by piece, never kept.
    """
    stream, deadline, left = environ["wsgi.input"], time.monotonic() + DRAIN_S, DRAIN_BYTES
    _connection(environ, "hurry", DRAIN_S)
    try:
        while left > 0 and time.monotonic() < deadline:
            piece = stream.read(_PIECE)
            if not piece:
                return
            left -= len(piece)
    except OSError:  # the client stalls or went away, or what it sends is no body
        pass
    _connection(environ, "give_up")


def _read(environ: Environ, most: int) -> bytes:
    """Up to `most` bytes, fewer only at the end of the body."""
    stream, pieces = environ["wsgi.input"], []
    while most > 0:
        try:
            piece = stream.read(most)
        except TimeoutError as error:
            raise BodyStalled("the rest of the body did not arrive in time") from error
        except OSError as error:
            _connection(environ, "give_up")
            raise MalformedBody("the body breaks off, or is not in the chunks it claims to be") from error
        if not piece:
            break
        pieces.append(piece)
        most -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _connection(environ: Environ, verb: str, *arguments: Any) -> None:
    """Tells `server`'s socket; another server's knows no such verb."""
    act = getattr(environ.get("gunicorn.socket"), verb, None)
    if act is not None:
        act(*arguments)
