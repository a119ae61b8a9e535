"""What a model's live errors came to, minute by minute: what the next look goes on from, in the store."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.core.errors import RecordCorrupt
from service.core.sealed import seal, unseal
from service.core.types import ClientKey

TENANT = "~drift"  # no caller's tenant begins so
MAGIC = b"RCD\x01"  # the last byte is the format version
HEAD = struct.Struct("<Qd?ddd")  # version, latest, whether a change stands, when it began, before, after
MINUTE = struct.Struct("<ddd")  # start, squared error, naive squared error
MOST = 1440  # minutes: a day of a busy model, two months of an hourly client


class ErrorMinute(NamedTuple):
    """Squared errors summed over a minute in which something was scored, both in the same unit."""

    start: float
    squared: float
    naive_squared: float


class Change(NamedTuple):
    """A change for the worse. `at` epoch seconds of its first minute; RMSE over naive RMSE on either side."""

    at: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class History:
    """The minutes of a version since its errors last changed, at most MOST, and the last growth that is not over.

    `latest` is the start of the newest minute ever looked at.
    """

    version: int
    minutes: tuple[ErrorMinute, ...] = ()
    latest: float = -math.inf
    change: Change | None = None

    def shares(self) -> list[float]:
        """Each minute's squared error as a share of both: in [0, 1], a half where the last value is as good."""
        return [m.squared / (m.squared + m.naive_squared) for m in self.minutes]


def place(model: str) -> ClientKey:
    """Where the history of a model is kept."""
    return ClientKey(TENANT, model, model)


def ratio(minutes: Sequence[ErrorMinute]) -> float:
    """RMSE over naive RMSE; infinite where the last value was never wrong."""
    naive = sum(minute.naive_squared for minute in minutes)
    return math.sqrt(sum(minute.squared for minute in minutes) / naive) if naive > 0.0 else math.inf


def encode(key: ClientKey, history: History) -> bytes:
    """The history as bytes that only `decode` with the same key reads."""
    change = history.change if history.change is not None else (0.0, 0.0, 0.0)
    head = HEAD.pack(history.version, history.latest, history.change is not None, *change)
    return seal(MAGIC, key, b"".join((head, *(MINUTE.pack(*minute) for minute in history.minutes))))


def decode(key: ClientKey, blob: bytes) -> History:
    """The history in `blob`. RecordCorrupt if it is none, or one byte is not as it was written."""
    body = unseal(MAGIC, key, blob)
    if len(body) < HEAD.size or (len(body) - HEAD.size) % MINUTE.size:
        raise RecordCorrupt("it is not of a history's length")
    version, latest, changed, *change = HEAD.unpack_from(body)
    minutes = tuple(map(ErrorMinute._make, MINUTE.iter_unpack(body[HEAD.size :])))
    return History(version, minutes, latest, Change(*change) if changed else None)
