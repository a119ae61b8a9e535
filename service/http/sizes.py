"""What a server may know of a request before the application sees it: how much body, and whether it is short work."""

from __future__ import annotations

from service.http.context import HttpLimits

SHORT_BYTES = 4096  # a predict of a few dozen observations; parsing more is no short work


def body_limit(limits: HttpLimits, method: str) -> int:
    """The most bytes of body that any endpoint takes by `method`."""
    return limits.max_history_bytes if method == "PUT" else limits.max_body_bytes


def is_short(method: str, path: str, size: int) -> bool:
    """Whether a request is worth a try where nothing may take long: a predict of little, or a sign of life.

    `size` is its body's in bytes.
    """
    if method == "POST":
        return size <= SHORT_BYTES and path.endswith("/predict")
    return path == "/livez"
