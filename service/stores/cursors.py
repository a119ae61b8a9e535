"""Cursors: where a listing or a scan stopped, as text that callers hand back unread."""

from __future__ import annotations

import base64
import json

from service.core.errors import InvalidInput

_DIGITS = 18  # of a number: every one so long fits into 64 bits


def encode(store: str, place: int, client: str) -> str:
    """The cursor after `client` in part `place` of a store of kind `store`; URL-safe text."""
    content = json.dumps([store, place, client], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode(store: str, places: int, cursor: str) -> tuple[int, str]:
    """The part (0 <= part < `places`) and the client a cursor of `encode` names; InvalidInput("after") for others."""
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        kind, place, client = json.loads(content)
        client.encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInput("after", "not a cursor of this listing; start again without it") from None
    if kind != store or type(place) is not int or not 0 <= place < places:
        raise InvalidInput("after", "not a cursor of this store; start again without it")
    return place, client


def encode_number(store: str, place: int, number: int) -> str:
    """The cursor after record `number` in part `place` of a scan of kind `store`."""
    return encode(store, place, str(number))


def decode_number(store: str, places: int, cursor: str) -> tuple[int, int]:
    """The part and the number a cursor of `encode_number` names; InvalidInput("after") for others."""
    place, text = decode(store, places, cursor)
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise InvalidInput("after", "not a cursor of this store; start again without it")
    return place, int(text)
