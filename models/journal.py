"""The journal of absorbed observations as bytes: checksummed frames, one after another. Standard library only.

A journal begins with MAGIC. A frame is FRAME (mark, length of its body, checksum, kind), then the body. Kind MODEL
declares a number for a model: JSON {"number", "model", "features", "interval_s"}. Kind ROWS is what one request
brought, in little-endian: ROWS, tenant, client, n times (float64) if the flag TIMED is set, n x F values (float32).
The mark lets a reader find the next frame behind damaged bytes.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

MAGIC = b"RCVJRNL\x01"  # the last byte is the format version
MARK = b"\xa7\x1fRJ"
FRAME = struct.Struct("<4sIIB")
ROWS_HEAD = struct.Struct("<HBHHIHQdd")  # number, flags, bytes of tenant and client, n, F, first step, absorbed, begun
TIMED = 1
MODEL, ROWS = 0, 1
LONGEST = 1 << 28  # a longer body is none; nor is an empty one, which zeros behind a mark would be


class NotAJournal(ValueError):
    """Bytes that are no journal of a format we read."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A model whose observations are logged: `features` in manifest order, `interval_s` None for any spacing."""

    model: str
    features: tuple[str, ...]
    interval_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What one predict brought: the observations of one client from `step` on, oldest first.

    `absorbed` is when, by the service's clock, and `begun` when this life of the client began: a client that was
    deleted or primed begins another. ``times`` are the request's own, one each, or None. ``values`` are row after row,
    raw units. Times in epoch seconds.
    """

    logged: Logged
    tenant: str
    client: str
    step: int
    absorbed: float
    begun: float
    times: array[float] | None
    values: array[float]

    def __len__(self) -> int:
        return len(self.values) // len(self.logged.features)


@dataclass(slots=True)
class Damage:
    """What a reader met that is no frame: how many places, and their bytes. A torn tail is one place."""

    places: int = 0
    bytes: int = 0
    undeclared: int = 0  # frames of a model whose declaration is lost


def declared(number: int, logged: Logged) -> bytes:
    """The frame that says which model `number` is, for the frames of rows behind it."""
    said = {
        "number": number,
        "model": logged.model,
        "features": list(logged.features),
        "interval_s": logged.interval_s,
    }
    return _frame(MODEL, json.dumps(said).encode())


def packed(
    number: int,
    tenant: bytes,
    client: bytes,
    step: int,
    absorbed: float,
    begun: float,
    times: Sequence[float] | None,
    values: bytes,
    shape: tuple[int, int],
) -> bytes:
    """The frame of one request's rows. `values`: n x F float32, little-endian, row after row; `shape`: (n, F)."""
    n, width = shape
    flags = 0 if times is None else TIMED
    head = ROWS_HEAD.pack(number, flags, len(tenant), len(client), n, width, step, absorbed, begun)
    own = b"" if times is None else struct.pack(f"<{n}d", *times)
    return _frame(ROWS, b"".join((head, tenant, client, own, values)))


def _frame(kind: int, body: bytes) -> bytes:
    return FRAME.pack(MARK, len(body), crc32(body, kind), kind) + body


def read(data: bytes, damage: Damage) -> Iterator[Rows]:
    """Every whole block of rows of a journal, in order; what is damaged or torn is skipped and noted in `damage`.

    NotAJournal for bytes that begin otherwise; nothing at all, or a torn beginning, is an empty journal.
    """
    if data[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(data):
            return
        raise NotAJournal(f"it begins with {data[: len(MAGIC)]!r}, not with {MAGIC!r}")
    known: dict[int, Logged] = {}
    at = len(MAGIC)
    while at < len(data):
        kind, body = _body(data, at)
        if body is None:
            found = _next(data, at)
            damage.places += 1
            damage.bytes += found - at
            at = found
            continue
        at += FRAME.size + len(body)
        if kind == MODEL:
            number, logged = _logged(body)
            known[number] = logged
        elif kind == ROWS:
            rows = _rows(body, known)
            if rows is None:
                damage.undeclared += 1
            else:
                yield rows


def _next(data: bytes, at: int) -> int:
    """Where the next whole frame behind `at` begins, the end of `data` if there is none."""
    at = data.find(MARK, at + 1)
    while at >= 0 and _body(data, at)[1] is None:  # a mark by chance, or of another damaged frame
        at = data.find(MARK, at + 1)
    return at if at >= 0 else len(data)


def _body(data: bytes, at: int) -> tuple[int, bytes | None]:
    """Kind and body of the frame at `at`; no body if there is no whole one."""
    if at + FRAME.size > len(data):
        return 0, None
    mark, length, checksum, kind = FRAME.unpack_from(data, at)
    if mark != MARK or not 0 < length <= LONGEST or at + FRAME.size + length > len(data):
        return 0, None
    body = data[at + FRAME.size : at + FRAME.size + length]
    return kind, body if crc32(body, kind) == checksum else None


def _logged(body: bytes) -> tuple[int, Logged]:
    said = json.loads(body)
    return said["number"], Logged(said["model"], tuple(said["features"]), said["interval_s"])


def _rows(body: bytes, known: dict[int, Logged]) -> Rows | None:
    number, flags, tenant, client, n, width, step, absorbed, begun = ROWS_HEAD.unpack_from(body)
    logged = known.get(number)
    if logged is None or len(logged.features) != width:
        return None
    at = ROWS_HEAD.size
    names = body[at : at + tenant], body[at + tenant : at + tenant + client]
    at += tenant + client
    times = None
    if flags & TIMED:
        times = _array("d", body[at : at + 8 * n])
        at += 8 * n
    values = _array("f", body[at : at + 4 * n * width])
    return Rows(logged, names[0].decode(), names[1].decode(), step, absorbed, begun, times, values)


def _array(code: str, data: bytes) -> array[float]:
    values: array[float] = array(code)
    values.frombytes(data)
    if sys.byteorder != "little":
        values.byteswap()
    return values
