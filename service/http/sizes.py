"""What a server may know of a request before the application sees it: how much body, and whether it is short work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.http.context import HttpLimits

LINES = "application/x-ndjson"
_LINES = frozenset((LINES, "application/ndjson", "application/jsonl", "application/json-lines"))
_BULK = re.compile(r"/v1/models/[^/]+/predict")
SHORT_BYTES = 4096  # a predict of a few dozen observations; parsing more is no short work


def are_lines(content_type: str) -> bool:
    """Whether a body of this type is lines of JSON."""
    return content_type.partition(";")[0].strip().lower() in _LINES


@dataclass(frozen=True, slots=True)
class Kinds:
    """See `server.house.Kinds`. `local` says that the store is this machine's own."""

    limits: HttpLimits
    local: bool

    @property
    def many_at_once(self) -> int:
        """How many requests of many clients are worked on at a time."""
        return self.limits.bulk_at_once

    def body_limit(self, method: str) -> int:
        """The most bytes of body that any endpoint takes by `method`."""
        return self.limits.max_history_bytes if method == "PUT" else self.limits.max_body_bytes

    def is_short(self, method: str, path: str, size: int) -> bool:
        """Whether a request is worth a try where nothing may take long: a predict of little, or a sign of life.

        Across a network even a predict waits. `size` is the body's in bytes.
        """
        if method == "POST":
            return self.local and size <= SHORT_BYTES and path.endswith("/predict")
        return path == "/livez"

    def is_many(self, method: str, path: str) -> bool:
        """Whether a request brings many clients."""
        return method == "POST" and _BULK.fullmatch(path) is not None

    def is_stream(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request's body may be of any length: it is read as it comes, and answered meanwhile."""
        lines = are_lines(environ.get("CONTENT_TYPE", ""))
        return lines and self.is_many(environ["REQUEST_METHOD"], environ["PATH_INFO"])
