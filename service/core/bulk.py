"""Many clients of a model in one call, by the beginning of their names, for a bounded time."""

from __future__ import annotations

import time
from typing import NamedTuple

from service.core.ports import Page
from service.core.predictor import Predictor
from service.core.tombstones import BURIED
from service.core.types import ClientKey

BOUND_S = 0.2  # others wait meanwhile
_PAGE = 100  # between two looks at the time
_EXPIRED = "~"  # begins the cursors of the second half; no store's cursor begins so


class Forgotten(NamedTuple):
    """How many clients were deleted. `cursor` goes on, None at the end."""

    deleted: int
    cursor: str | None


def matching(
    predictor: Predictor, tenant: str, model: str, prefix: str, after: str | None, limit: int, bound_s: float = BOUND_S
) -> Page:
    """Up to `limit` clients whose names begin with `prefix`, from the cursor `after` on.

    Stores list whole models, so all names are looked through, for `bound_s` at most: fewer clients or none, with a
    cursor, are not the end.
    """
    deadline = time.monotonic() + bound_s
    while True:
        page = predictor.clients(tenant, model, after, limit)
        found = [client for client in page.clients if client.startswith(prefix)]
        after = page.cursor
        if found or after is None or time.monotonic() > deadline:
            return Page(found, after)


def forget_matching(
    predictor: Predictor, tenant: str, model: str, prefix: str, after: str | None, bound_s: float = BOUND_S
) -> Forgotten:
    """Forget the clients whose names begin with `prefix`, from the cursor `after` on, for about `bound_s`.

    Called again with each cursor until there is none, it forgets every client that was there from the first call to
    the last: those that are kept, then what is left of those that expired. Repeating a call is harmless.
    """
    deadline = time.monotonic() + bound_s
    deleted = 0
    while True:
        expired = after is not None and after.startswith(_EXPIRED)
        place = BURIED + tenant if expired else tenant
        page = predictor.clients(place, model, after[1:] or None if expired and after is not None else after, _PAGE)
        for client in page.clients:
            if client.startswith(prefix):
                deleted += predictor.forget(ClientKey(tenant, model, client))
        if page.cursor is None and expired:
            return Forgotten(deleted, None)
        after = _EXPIRED if page.cursor is None else _EXPIRED + page.cursor if expired else page.cursor
        if time.monotonic() > deadline:
            return Forgotten(deleted, after)
