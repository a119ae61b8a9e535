"""Answers in columns as JSON: what `render.answer` makes of each, at a tenth of its time.

A template is what it makes of one answer whose every value can be told from the others, cut where those stand. So
there is one place that says how an answer looks. The numbers of all answers are written by one call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.core.many.answers import Answers
from service.core.requests import Answer, Previous, StateInfo
from service.core.types import FloatArray, ModelSpec
from service.http import render
from service.http.output import encode

_STEP, _BEHIND, _CLIENT = 2**53 - 1, 2**53 - 2, "client ~ of ~ the ~ template"


class Template:
    """The JSON of answers that are carried over by one version, with or without intervals."""

    def __init__(self, spec: ModelSpec, *, bounded: bool) -> None:
        k = np.arange(len(spec.targets), dtype=np.float32)
        point, lower, upper, predicted, anomaly = ((1e4 * (i + 1) + k + 0.5).astype(np.float32) for i in range(5))
        observed = (2e5 + 2 * k + 0.25).astype(np.float32)
        y = np.zeros((1, len(k), spec.columns), np.float32)
        y[0, :, 0] = point
        interval = np.stack((lower, upper), axis=1)[None] if bounded else None
        answer = Answer(
            spec, spec.version, _CLIENT, _STEP, y, interval, None, Previous(predicted, observed, anomaly),
            StateInfo("carried", None, _BEHIND), spec.level,
        )  # fmt: skip
        values = [point, *((lower, upper) if bounded else ()), predicted, observed, observed - predicted, anomaly]
        wanted = {encode(value): at for at, value in enumerate(np.concatenate(values))}
        wanted |= {encode(_CLIENT): -3, encode(_STEP): -2, encode(_BEHIND): -1}
        found = re.split(b"(?<=:)(" + b"|".join(map(re.escape, wanted)) + b")(?=[,}])", encode(render.answer(answer)))
        self._fixed = found[::2]
        self._order = [wanted[value] for value in found[1::2]]
        self._numbers = [at for at in self._order if at >= 0]
        if sorted(self._order) != sorted(wanted.values()):
            raise RuntimeError("an answer's JSON is not what its template takes it for")

    def parts(self, answers: Answers, end: bytes) -> tuple[list[bytes], int]:
        """The JSON of `answers` in parts, so many for each; `end` comes behind each."""
        n, stride = len(answers), 2 * len(self._order) + 1
        values = [answers.y[..., 0]]
        if answers.interval is not None:
            values += [answers.interval[..., 0], answers.interval[..., 1]]
        error = answers.observed - answers.predicted
        values += [answers.predicted, answers.observed, error, answers.anomaly]
        numbers = np.concatenate(values, axis=1)[:, self._numbers]
        texts = _split(numbers)
        width = len(self._numbers)
        parts = [b""] * (n * stride)
        at = 0
        for place, (fixed, column) in enumerate(zip(self._fixed, self._order, strict=False)):
            parts[2 * place :: stride] = [fixed] * n
            if column == -3:
                parts[2 * place + 1 :: stride] = _names([key.client for key in answers.asked.keys])
            elif column == -2:
                parts[2 * place + 1 :: stride] = _split(answers.steps)
            elif column == -1:
                parts[2 * place + 1 :: stride] = _split(answers.behind)
            else:
                parts[2 * place + 1 :: stride] = texts[at::width]
                at += 1
        parts[stride - 1 :: stride] = [self._fixed[-1] + end] * n
        return parts, stride


def joined(answers: Answers, end: bytes) -> bytes:
    """The JSON of each, one after another, with `end` behind each."""
    if not _is_usual(answers):
        return b"".join(encode(render.answer(answers.answer(at))) + end for at in range(len(answers)))
    parts, _ = _template(answers).parts(answers, end)
    return b"".join(parts)


def each(answers: Answers, end: bytes) -> list[bytes]:
    """The JSON of each, with `end` behind it."""
    if not _is_usual(answers):
        return [encode(render.answer(answers.answer(at))) + end for at in range(len(answers))]
    parts, stride = _template(answers).parts(answers, end)
    return [b"".join(parts[at : at + stride]) for at in range(0, len(parts), stride)]


def _is_usual(answers: Answers) -> bool:
    return answers.interval is None or not bool(np.isnan(answers.interval).any())


def _template(answers: Answers) -> Template:
    return _template_of(_Same(answers.spec), answers.interval is not None)


class _Same:
    """A spec as a key: arrays in it have no hash."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.spec is self.spec

    def __hash__(self) -> int:
        return id(self.spec)


@lru_cache(maxsize=32)
def _template_of(same: _Same, bounded: bool) -> Template:
    return Template(same.spec, bounded=bounded)


def _split(numbers: FloatArray | NDArray[np.uint64]) -> list[bytes]:
    """Each of the numbers as JSON, row after row."""
    return encode(np.ascontiguousarray(numbers).ravel())[1:-1].split(b",")


def _names(clients: Sequence[str]) -> list[bytes]:
    """Each name as JSON: no text within one can hold the two quotes and the comma that stand between two."""
    return [b'"' + name + b'"' for name in encode(clients)[2:-2].split(b'","')]
