"""Where a series changed: ADWIN (Bifet & Gavaldà 2007) as river has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from river import drift

DELTA = 0.002  # the chance that a stationary series is cut at one of its values, by Hoeffding's bound an overestimate


def changes(values: Sequence[float], delta: float = DELTA) -> list[tuple[int, int]]:
    """Where ``values``, in [0, 1] and oldest first, changed their mean: for each change the first index of what is
    unlike the rest before it, and that at which this showed.

    A function of the values alone. After a change the detector begins anew with what follows, so that none is seen
    twice.
    """
    found: list[tuple[int, int]] = []
    detector = _adwin(delta)
    for i, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            begin = found[-1][1] + 1 if found else 0
            found.append((begin + _split(values[begin : i + 1]), i))
            detector = _adwin(delta)
    return found


def _split(values: Sequence[float]) -> int:
    """Where the means on either side are least alike, as cumulative sums tell it (Page 1955). ADWIN itself drops the
    oldest values, as few as will do, which says little of where the change was."""
    n, mean = len(values), sum(values) / len(values)
    best, at, total = -1.0, 1, 0.0
    for k in range(1, n):
        total += values[k - 1] - mean
        unlike = total * total / (k * (n - k))
        if unlike > best:
            best, at = unlike, k
    return at


def _adwin(delta: float) -> Any:
    return cast(Any, drift.ADWIN)(delta=delta, clock=1)
