"""Lines in and lines out: a bulk call for as many lines as are there, over and over, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from service.core.errors import RecurveError
from service.http.errors import BodyTooLarge, MalformedBody, item_problem
from service.http.output import encode

PIECE_BYTES = 64 * 1024  # read at once
MOST_LINES = 512  # answered at once

Read = Callable[[int], bytes | None]
Answer = Callable[[list[Any], bytes], bytes]


def replay(read: Read, answer: Answer, longest: int) -> Iterator[bytes]:
    """The answers to the lines that `read` gives, a line each and in their order; empty lines have none.

    `read` gives some bytes, none at the end, and None where there are none yet: then b"" is yielded, and it is asked
    again when the caller goes on. `answer` is `ManyPredicts.answer` for a model. A line that is no JSON, or longer than
    `longest` bytes, is answered with a problem and is not the end.
    """
    rest, skipping, ended = b"", False, False
    while not ended:
        piece = read(PIECE_BYTES)
        if piece is None:
            yield b""
            continue
        ended = not piece
        *lines, rest = (rest + piece).split(b"\n")
        if skipping and lines:  # what is left of a line that was too long
            skipping = False
            del lines[0]
        if ended and rest and not skipping:
            lines.append(rest)
        for at in range(0, len(lines), MOST_LINES):
            yield from _answered([line for line in lines[at : at + MOST_LINES] if line.strip()], answer, longest)
        if not ended and len(rest) > longest:
            if not skipping:
                yield _problem(BodyTooLarge(longest))
            rest, skipping = b"", True


def _answered(lines: list[bytes], answer: Answer, longest: int) -> Iterator[bytes]:
    """The answers to some whole lines."""
    try:
        items = [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        pass
    else:
        if items and max(map(len, lines)) <= longest:
            yield _whole(items, answer)
            return
    good: list[Any] = []
    for line in lines:
        try:
            if len(line) > longest:
                raise BodyTooLarge(longest)
            good.append(orjson.loads(line))
        except (orjson.JSONDecodeError, BodyTooLarge) as error:
            if good:
                yield _whole(good, answer)
                good = []
            yield _problem(error if isinstance(error, RecurveError) else MalformedBody(f"the line is no JSON: {error}"))
    if good:
        yield _whole(good, answer)


def _whole(items: list[Any], answer: Answer) -> bytes:
    """The answers to some items; where the call fails as a whole, each gets its problem: the head is long since out."""
    try:
        return answer(items, b"\n")
    except RecurveError as error:
        return b"".join(_problem(error) for _ in items)


def _problem(error: RecurveError) -> bytes:
    return encode({"client": None, **item_problem(error)}) + b"\n"
