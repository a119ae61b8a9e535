"""What happens around every request, whoever routes it: its id, its log line, its metrics."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from itertools import count

from service.core.requests import Answer
from service.http.context import ANSWER, BEGAN, Environ
from service.logs import request_id

access = logging.getLogger("recurve.access")

READY = "/readyz"
HEADER, ENVIRON_KEY = "X-Request-Id", "HTTP_X_REQUEST_ID"
_SANE = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")

# What a finished request tells its observer: route, method, status, seconds, and a predict's answer.
Observer = Callable[[str, str, int, float, Answer | None], None]


class Around:
    """Begins and ends requests. `observe` is told of every one when it ends."""

    def __init__(self, observe: Observer, *, access_log: bool, slow_request_s: float) -> None:
        self._observe = observe
        self._access_log = access_log
        self._slow_request_s = slow_request_s
        self._prefix, self._numbers = os.urandom(4).hex(), count()

    def begin(self, environ: Environ) -> None:
        """The request's id is the one it brings, if that is a sane one."""
        environ[BEGAN] = time.perf_counter()
        given = environ.get(ENVIRON_KEY)
        request_id.set(given if given and _SANE.fullmatch(given) else f"{self._prefix}{next(self._numbers):08x}")

    def end(self, environ: Environ, route: str, status: int) -> str:
        """The request's id, for its answer. `route` is the pattern it came in by, "unknown" if by none."""
        seconds = time.perf_counter() - environ[BEGAN]
        method = environ["REQUEST_METHOD"]
        self._observe(route, method, status, seconds, environ.get(ANSWER))
        slow = seconds > self._slow_request_s
        failed = status >= 500 and route != READY  # not being ready is no failure, and asked all the time
        if self._access_log or slow or failed:
            path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
            access.log(
                logging.WARNING if slow or failed else logging.INFO,
                "slow request" if slow else "request",
                extra={
                    "method": method,
                    "path": path[:1024],
                    "status": status,
                    "duration_ms": round(seconds * 1000, 3),
                    "remote": environ.get("REMOTE_ADDR"),
                },
            )
        return request_id.get() or ""
