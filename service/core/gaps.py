"""Times of observations: in order, on the interval, and how many steps are missing between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidInput, OrderConflict, Unsupported
from service.core.types import GapPolicy, ModelSpec

HOUR_S = 3600.0
FEW = 16  # times up to which Python's own arithmetic beats an array's


def check_times(spec: ModelSpec, times: tuple[float, ...], now: float) -> None:
    """Refuse times that are wrong by themselves: not finite, not rising, too close, or in the future (422)."""
    horizon = now + max(HOUR_S, 2 * (spec.interval_s or 0.0))
    if len(times) > FEW and _are_right(spec, np.array(times), horizon):
        return
    for i, time in enumerate(times):
        name = "time" if len(times) == 1 else f"times[{i}]"
        if not math.isfinite(time):
            raise InvalidInput(name, "is not a finite time", code="not_finite")
        if time > horizon:
            raise InvalidInput(name, f"{time:.0f} lies more than {horizon - now:.0f} s in the future")
        if i and time <= times[i - 1]:
            raise InvalidInput(name, "is not after the one before it")
        if i and spec.interval_s is not None and time - times[i - 1] < spec.interval_s / 2:
            raise InvalidInput(name, f"is less than half the interval ({spec.interval_s:g} s) after the one before it")


def _are_right(spec: ModelSpec, times: NDArray[np.float64], horizon: float) -> bool:
    """Whether nothing is wrong with many times, at a glance."""
    spans = np.diff(times)
    apart = spans > 0 if spec.interval_s is None else (spans > 0) & (spans >= spec.interval_s / 2)
    return bool(apart.all() and np.isfinite(times).all() and (times <= horizon).all())


def missing_steps(
    spec: ModelSpec, times: tuple[float, ...] | None, n: int, last_time: float, expected_step: int
) -> list[int]:
    """For each of `n` observations, the steps missing before it: round(dt / interval) - 1.

    OrderConflict time_conflict or too_soon (409) where the first does not follow `last_time` (NaN: unknown).
    """
    if times is None:
        return [0] * n
    first = times[0] - last_time  # NaN compares false below
    if first <= 0:
        raise OrderConflict("time_conflict", "time is not after the client's last one", expected_step, last=last_time)
    if spec.interval_s is None:
        return [0] * n
    if first < spec.interval_s / 2:
        detail = f"time is {first:g} s after the last one, less than half the interval ({spec.interval_s:g} s)"
        raise OrderConflict("too_soon", detail, expected_step, last=last_time)
    if n > FEW:
        return _missing_of_many(np.diff(np.array((last_time, *times))), spec.interval_s)
    spans = [first] + [after - before for before, after in pairwise(times)]
    return [max(0, round(span / spec.interval_s) - 1) if span == span else 0 for span in spans]


def _missing_of_many(spans: NDArray[np.float64], interval_s: float) -> list[int]:
    missing = np.rint(spans / interval_s) - 1.0  # rounds as `round` does
    counts = [0] * len(spans)
    for i in np.flatnonzero(missing > 0).tolist():  # NaN, of an unknown time, is not
        counts[i] = int(missing[i])
    return counts


def effective_policy(
    spec: ModelSpec, asked: GapPolicy | None, missing: int, max_gap: int, expected_step: int
) -> GapPolicy:
    """What to do about `missing` steps: the policy asked for or the model's default; beyond `max_gap` restart."""
    policy = asked or ("fill" if spec.feedback is not None else "restart")
    if policy == "reject":
        detail = f"{missing} steps are missing and gap is 'reject'"
        raise OrderConflict("gap", detail, expected_step, missing=missing)
    return "restart" if missing > max_gap else policy


def check_fills(plan: Sequence[tuple[int, GapPolicy] | None], max_gap: int) -> int:
    """How many steps a request fills; InvalidInput if far more than it brings observations: its cost has to be
    bounded."""
    limit = len(plan) + 10 * max_gap
    fills = sum(gap[0] for gap in plan if gap is not None and gap[1] == "fill")
    if fills > limit:
        detail = f"{fills} steps are missing in all, one request fills {limit} at most; split it, or say gap 'restart'"
        raise InvalidInput("times", detail)
    return fills


def check_policy(spec: ModelSpec, asked: GapPolicy | None) -> None:
    """Unsupported if the model can't fill: filling feeds its own predictions back."""
    if asked == "fill":
        require_feedback(spec, "gap 'fill'")


def require_feedback(spec: ModelSpec, what: str) -> None:
    """Unsupported, naming the features, unless the model predicts every one of its features."""
    if spec.feedback is None:
        targets = {target.name for target in spec.targets}
        blind = ", ".join(feature.name for feature in spec.features if feature.name not in targets)
        detail = f"{what} feeds predictions back, and model {spec.name!r} does not predict: {blind}"
        raise Unsupported(detail)


def advance(spec: ModelSpec, last_time: float, times: tuple[float, ...] | None, n: int, now: float) -> float:
    """The client's last time after `n` observations (NaN: unknown).

    Without times it moves on by the interval, as if they came in time, but not beyond `now`: a guess must not shut
    out the true times that follow. Without an interval it stays, for the order's sake.
    """
    if times is not None:
        return times[-1]
    if spec.interval_s is None or math.isnan(last_time):
        return last_time
    return max(last_time, min(last_time + n * spec.interval_s, now))
