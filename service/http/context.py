"""What the routes work with, handed to them by `create_app`; who is calling and about whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask import request

from service.core.errors import InvalidInput
from service.core.many.together import Together
from service.core.mover import Mover
from service.core.pinning import Pinner
from service.core.ports import MovesLabels, StateStore
from service.core.predictor import Predictor
from service.core.registry import Registry
from service.core.types import ClientKey

Environ = dict[str, Any]  # WSGI's; what the routes read of it they read there: each look at Flask's proxies costs
BEGAN, ANSWER = "recurve.began", "recurve.answer"  # kept in it: when the request began, what a predict answered

TENANT = "default"
ID_MAX = 256
_UNDECODABLE = "\ufffd"  # what bytes that are not UTF-8 are read as


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much one request may bring. Sizes in bytes, the rest in observations.

    `bulk_at_once`: requests of many clients that are worked on at a time. Over a store of this machine one is best:
    four that compete for the interpreter's lock and the processor's cache take half as much time again for each step.
    """

    max_body_bytes: int = 1024 * 1024
    max_history_bytes: int = 16 * 1024 * 1024
    max_observations: int = 1000
    max_history: int = 100_000
    max_items: int = 1024
    bulk_at_once: int = 1


@dataclass(frozen=True, slots=True)
class Collaborators:
    """Everything behind the routes. `problems` tells what could not be loaded, `evidence` what is kept of a version's
    trial, `exposition` is the metrics' text, `count_items` counts items of bulk requests by model, version and status,
    `admin_token` the secret by which an administrator is known; None: nobody
    is one."""

    predictor: Predictor
    together: Together
    mover: Mover
    pinner: Pinner
    labels: MovesLabels
    registry: Registry
    store: StateStore
    problems: Callable[[], list[dict[str, Any]]] = list
    evidence: Callable[[str, int], dict[str, Any] | None] = lambda model, version: None
    exposition: Callable[[], tuple[bytes, str]] = lambda: (b"", "text/plain")
    count_items: Callable[[str, int | str, int, int], None] = lambda model, version, status, items: None
    limits: HttpLimits = field(default_factory=HttpLimits)
    admin_token: str | None = field(default=None, repr=False)


def tenant() -> str:
    """Whose clients the caller may see. One tenant until there are API keys; no other place decides this."""
    return TENANT


def client_key(model: str, client: str, field: str = "client") -> ClientKey:
    """The key of the client that `field` of the request names; InvalidInput unless it is 1-256 printable characters."""
    if not 1 <= len(client) <= ID_MAX:
        raise InvalidInput(field, f"must be 1 to {ID_MAX} characters, not {len(client)}")
    if not client.isprintable() or _UNDECODABLE in client:
        raise InvalidInput(field, "must be printable characters in UTF-8")
    if "/" in client:  # in a body; no path could ask for it again
        raise InvalidInput(field, "can't contain '/'")
    return ClientKey(tenant(), model, client)


def check_query(environ: Environ, *allowed: str) -> None:
    """InvalidInput naming the first query parameter that is not one of `allowed`."""
    if not environ.get("QUERY_STRING"):
        return
    for name in request.args:
        if name not in allowed:
            takes = ", ".join(allowed) if allowed else "none"
            raise InvalidInput(name[:64], f"is no parameter of this request; it takes {takes}")
