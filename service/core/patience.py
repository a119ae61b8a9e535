"""Whether the caller can wait. A thread that serves many at once can't: it must give way rather than hold them up."""

from __future__ import annotations

import threading

LONG_STEPS = 64  # more steps of a model than this are long work: at 10 to 20 us each, about a millisecond


class WouldWait(BaseException):
    """To go on would mean waiting, or working for long. Nothing has moved: do the same again where there is time.

    A BaseException, as asyncio's CancelledError: no handler of errors on the way may take it for one.
    """


_thread = threading.local()


class hurried:  # noqa: N801  # used as a function is
    """Within, this thread's calls give way instead of waiting; or with `yes` False wait all the same."""

    __slots__ = ("_before", "_yes")

    def __init__(self, yes: bool = True) -> None:
        self._yes = yes

    def __enter__(self) -> None:
        self._before = is_hurried()
        _thread.hurried = self._yes

    def __exit__(self, *_: object) -> None:
        _thread.hurried = self._before


def is_hurried() -> bool:
    """Whether this thread must not wait now."""
    return getattr(_thread, "hurried", False)


def give_way(steps: int | None = None) -> None:
    """Said before waiting, or before as many `steps` of work: WouldWait if this thread has no time for it."""
    if (steps is None or steps > LONG_STEPS) and is_hurried():
        raise WouldWait
