"""Who may change what is served: whoever knows the administrator's token."""

from __future__ import annotations

from hmac import compare_digest

from service.http.context import Environ
from service.http.errors import NoAdmin, NotAdmin

_SCHEME = "bearer "


def check_admin(environ: Environ, token: str | None) -> None:
    """NoAdmin without a `token`, NotAdmin unless the request shows it. How long that takes tells nothing of it."""
    if token is None:
        raise NoAdmin
    given = environ.get("HTTP_AUTHORIZATION", "")
    shown = given[len(_SCHEME) :].strip() if given[: len(_SCHEME)].lower() == _SCHEME else ""
    if not compare_digest(shown.encode("utf-8", "replace"), token.encode()):
        raise NotAdmin
