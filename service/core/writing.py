"""Writing one client's record: one writer at a time in this process, again while others get in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from service.core.errors import Contended
from service.core.locks import ClientLocks
from service.core.patience import give_way, is_hurried
from service.core.types import ClientKey

T = TypeVar("T")


def until_saved(locks: ClientLocks, key: ClientKey, attempt: Callable[[], T | None], bound_s: float) -> T:
    """Run `attempt` under the client's lock until it answers: None says that another process saved first.

    Contended if that goes on, or the lock is not to be had, for `bound_s`; WouldWait at once in a thread that has no
    time to wait. Then nothing has moved.
    """
    deadline = time.monotonic() + bound_s
    if not locks.take(key) and (is_hurried() or not locks.take(key, bound_s)):
        give_way()
        raise Contended(f"others wait for client {key.client!r} as well; send it again")
    try:
        while True:
            answer = attempt()
            if answer is not None:
                return answer
            give_way()
            if time.monotonic() > deadline:
                raise Contended(f"client {key.client!r} is written by others all the time; send it again")
    finally:
        locks.give(key)
