"""Request bodies as raw bytes, whatever Content-Type they come with, and never more than is allowed."""

from __future__ import annotations

from service.http.context import Environ
from service.http.errors import BodyEncoded, BodyTooLarge, MalformedBody


def read_body(environ: Environ, limit: int) -> bytes:
    """The request's body. BodyTooLarge beyond `limit` bytes, declared or sent; BodyEncoded if compressed."""
    check_encoding(environ)
    declared = environ.get("CONTENT_LENGTH")
    length = int(declared) if declared and declared.isdecimal() else None
    if length is not None and length > limit:
        raise BodyTooLarge(limit)
    # one byte more than the limit is asked for where the length is unknown: then the limit is seen to be passed
    data: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(data) > limit:
        raise BodyTooLarge(limit)
    if length is not None and len(data) < length:
        raise MalformedBody(f"the body ended after {len(data)} of {length} bytes")
    return data


def check_encoding(environ: Environ) -> None:
    """BodyEncoded if the body comes compressed."""
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity")
    if encoding.lower() != "identity":
        raise BodyEncoded(encoding)
