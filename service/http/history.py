"""Histories: bodies of up to a hundred thousand observations, read a slice at a time.

Parsed at once, such a body is some ten megabytes of small objects, and nobody else has the interpreter lock until they
are made: every other connection of the worker would wait for that. A slice takes about a millisecond.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

import numpy as np
import orjson

from service.core.errors import RecurveError
from service.core.requests import PredictRequest
from service.core.types import FloatArray, ModelSpec
from service.http.observations import observations_array
from service.http.schemas import HistoryBody, check_size, decode, predict_request

SLICE_BYTES = 32 * 1024  # of JSON; a shorter body is parsed as it is

_BEGIN = re.compile(rb'\s*\{\s*"observations"\s*:\s*(\[)\s*[\[{]')
_ENDS = {b"[": re.compile(rb"\]\s*\]"), b"{": re.compile(rb"\}\s*\]")}  # of the last observation, and of them all


class _Cut(NamedTuple):
    """A body without its observations, and these, (n, F) float32."""

    body: HistoryBody
    observations: FloatArray


def history_request(data: bytes, spec: ModelSpec, most: int, slice_bytes: int = SLICE_BYTES) -> PredictRequest:
    """The core's request for the body of a history in `data`, at most `most` observations.

    MalformedBody, InvalidInput naming the field. The same request, and the same refusals, as from the body parsed as a
    whole: that is how one is read of which the slices are not at once what they should be.
    """
    check_size(data, spec, most)
    cut = _cut(data, spec, most, slice_bytes) if len(data) > slice_bytes else None
    if cut is None:
        return predict_request(decode(HistoryBody, data, spec, most), spec, most=most)
    return predict_request(cut.body, spec, most=most, observations=cut.observations)


def _cut(data: bytes, spec: ModelSpec, most: int, slice_bytes: int) -> _Cut | None:
    """A body that begins with its observations, lists or objects, none of which has a list or an object in it."""
    begin = _BEGIN.match(data)
    if begin is None:
        return None
    first = begin.end() - 1
    close = _ENDS[data[first : first + 1]]
    comma = b"]," if data[first : first + 1] == b"[" else b"},"
    parts, n, at = [], 0, first
    try:
        while True:
            cut = data.find(comma, at + slice_bytes)
            end = close.search(data, at, len(data) if cut < 0 else cut)
            if end is None and cut < 0:
                return None
            until = cut + 1 if end is None else end.start() + 1
            parts.append(observations_array(orjson.loads(b"[%b]" % data[at:until]), "observations", spec))
            n += len(parts[-1])
            if n > most:
                return None
            if end is not None:
                break
            at = cut + 2
        # what is left is parsed as any body, its observations a word that no one can have written in their place
        word = secrets.token_hex(8)
        rest = b'%b["%b"]%b' % (data[: begin.start(1)], word.encode(), data[end.end() :])
        body = decode(HistoryBody, rest, spec, most)
    except (orjson.JSONDecodeError, RecurveError):
        return None
    return _Cut(body, np.concatenate(parts)) if body.observations == [word] else None
