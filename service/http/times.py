"""Times in requests and answers: ISO 8601 with an offset, or seconds since the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from operator import attrgetter
from typing import cast

from service.core.errors import InvalidInput

LATEST = 253402300799.0  # the last second of the year 9999
EARLIEST = -LATEST
_TZINFO = attrgetter("tzinfo")


def parse_time(raw: object, field: str) -> float:
    """Epoch seconds of `raw`: a number of seconds, or an ISO 8601 time with Z or an offset.

    A time without an offset is refused: which zone's it is can only be guessed, and a wrong guess is a gap of
    hours that the model then fills. InvalidInput naming `field`.
    """
    if type(raw) is float or type(raw) is int:
        if not EARLIEST <= raw <= LATEST:  # false for NaN as well
            if type(raw) is float and not isfinite(raw):
                raise InvalidInput(field, "is not a finite number", code="not_finite")
            raise InvalidInput(field, "is outside the years that count; epoch times are in seconds, not milliseconds")
        return float(raw)
    if type(raw) is str:
        try:
            moment = datetime.fromisoformat(raw)
        except ValueError:
            raise InvalidInput(field, f"{raw[:40]!r} is no ISO 8601 time such as 2026-03-01T12:00:00Z") from None
        if moment.tzinfo is None:
            raise InvalidInput(field, f"{raw[:40]!r} has no offset: add Z or one like +01:00, or send epoch seconds")
        try:
            return moment.timestamp()
        except (OverflowError, ValueError):
            raise InvalidInput(field, f"{raw[:40]!r} is outside the years that count") from None
    raise InvalidInput(field, f"must be an ISO 8601 time or epoch seconds, not {kind_of(raw)}")


def parse_times(raw: Sequence[object], fields: str | Sequence[str]) -> tuple[float, ...]:
    """`parse_time` of each, in a few passes over all of them. `fields` names them as `observations_array`'s does."""
    kinds = set(map(type, raw))
    if kinds <= {int, float}:
        numbers = cast(Sequence[float], raw)
        if min(numbers) >= EARLIEST and max(numbers) <= LATEST and isfinite(sum(map(float, numbers))):
            return tuple(map(float, numbers))
    elif kinds == {str}:
        try:
            moments = list(map(datetime.fromisoformat, cast(Sequence[str], raw)))
            if all(map(_TZINFO, moments)):
                return tuple(map(datetime.timestamp, moments))
        except (OverflowError, ValueError):
            pass  # which one is said below
    return tuple(
        parse_time(one, f"{fields}[{i}]" if isinstance(fields, str) else fields[i]) for i, one in enumerate(raw)
    )


def iso_time(seconds: float | None) -> str | None:
    """Epoch seconds as ISO 8601 in UTC with milliseconds, None for None or a time that no calendar holds."""
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def kind_of(raw: object) -> str:
    """What JSON calls a decoded value, for messages."""
    if raw is None:
        return "null"
    if isinstance(raw, bool):
        return "true" if raw else "false"
    names = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(raw), "a value")
