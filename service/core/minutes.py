"""Sums of a minute: what many processes add up together, each in a row of its own.

A row says what one process has added to the minute in all, so that writing it again changes nothing: a flush whose
reply was lost is repeated without a thought, whoever wrote in between. The minute's sums are those of its rows.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.core.errors import RecordCorrupt
from service.core.sealed import seal, unseal
from service.core.types import ClientKey

TENANT = "~minutes"  # no caller's tenant begins so
MAGIC = b"RCM\x01"  # the last byte is the format version
HEAD = struct.Struct("<dd")  # start, width_s; then the rows
ROW = struct.Struct("<8sH")  # who added, how many values; then the values, float64
ROW_BYTES = 8  # of what names a row
KEPT_S = 86400.0

Values = tuple[float, ...]


class Minute(NamedTuple):
    """The sums of a closed minute. `start` epoch seconds."""

    start: float
    values: Values


@dataclass(frozen=True, slots=True)
class Sums:
    """A minute's sums by row. `start` epoch seconds, `width_s` the minute's length."""

    start: float
    width_s: float
    rows: Mapping[bytes, Values] = field(default_factory=dict)

    def with_row(self, row: bytes, values: Values) -> Sums:
        """These sums with that row as it is now, whatever it was."""
        return Sums(self.start, self.width_s, {**self.rows, row: values})

    def total(self) -> Values:
        """The sums over all rows; where one is shorter, its missing values are zeros."""
        total: Values = ()
        for values in self.rows.values():
            total = plus(total, values)
        return total


def plus(one: Sequence[float], other: Sequence[float]) -> Values:
    """The sums value by value; where one is shorter, its missing values are zeros."""
    if len(one) < len(other):
        one, other = other, one
    return (*(a + b for a, b in zip(one, other, strict=False)), *one[len(other) :])


def start_of(now: float, width_s: float) -> float:
    """When the minute that `now` lies in began, to the millisecond; the same in every process."""
    return round(math.floor(now / width_s) * width_s, 3)


def place(model: str, series: str, start: float) -> ClientKey:
    """Where the sums of a series are kept for the minute that began at `start`."""
    return ClientKey(TENANT, model, f"{series}@{round(start * 1000)}")


def start_in(client: str, series: str) -> float | None:
    """The minute that a name made by `place` is of; None if it is of another series, or no such name."""
    found, _, milliseconds = client.rpartition("@")
    return int(milliseconds) / 1000 if found == series and milliseconds.isdecimal() else None


def encode(key: ClientKey, sums: Sums) -> bytes:
    """The sums as bytes that only `decode` with the same key reads."""
    parts = [HEAD.pack(sums.start, sums.width_s)]
    for row, values in sums.rows.items():
        parts += ROW.pack(row, len(values)), struct.pack(f"<{len(values)}d", *values)
    return seal(MAGIC, key, b"".join(parts))


def decode(key: ClientKey, blob: bytes) -> Sums:
    """The sums in `blob`. RecordCorrupt if there are none, or one byte is not as it was written."""
    body = unseal(MAGIC, key, blob)
    try:
        start, width_s = HEAD.unpack_from(body)
        rows, at = {}, HEAD.size
        while at < len(body):
            row, count = ROW.unpack_from(body, at)
            rows[row] = struct.unpack_from(f"<{count}d", body, at + ROW.size)
            at += ROW.size + 8 * count
    except struct.error as exc:
        raise RecordCorrupt("it ends in the middle of a minute's sums") from exc
    return Sums(start, width_s, rows)
