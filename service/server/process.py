"""How a worker's process is set, whichever server runs it, once it has all that it will keep.

Every request of many clients takes and gives back some megabytes. glibc would return them to the system each time, only
to have them zeroed and mapped again, a page at a time; and Python would look through all that the imports made, again
and again, for cycles that are not there.
"""

from __future__ import annotations

import ctypes
import gc
import sys

SWITCH_S = 0.0001  # a thread that works beside keeps the interpreter lock no longer; usually 5 ms
KEPT_BYTES = 16 * 1024 * 1024  # of free memory, by each arena
ARENAS = 2  # the interpreter's lock lets hardly two threads ask at once
YOUNG = 20_000  # new objects until they are looked through: a request of a thousand clients makes fewer

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def settle() -> None:
    """Be quick to let others go on; keep what memory there is, and what is free (where the C library is glibc)."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_M_TRIM_THRESHOLD, KEPT_BYTES),
            (_M_MMAP_THRESHOLD, KEPT_BYTES),
            (_M_ARENA_MAX, ARENAS),
        ):
            mallopt(option, value)
