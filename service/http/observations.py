"""Observations of a request as one float32 array: numbers, lists in manifest order, or objects by feature name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.core.errors import InvalidInput
from service.core.types import FeatureSpec, FloatArray, ModelSpec
from service.http.times import kind_of


def observations_array(raw: Sequence[Any], fields: Sequence[str] | str, spec: ModelSpec) -> FloatArray:
    """``raw`` decoded JSON, one entry per observation -> (n, F) float32.

    `fields` names the entries for messages: one name each, or one name they are indexed under. InvalidInput naming
    the value (`observations[3].pressure`): not a number, not finite after the cast to float32, too few or too many,
    a name that is no feature, beyond the feature's limits.
    """
    names = [feature.name for feature in spec.features]
    rows = [_row(one, index, fields, names) for index, one in enumerate(raw)]
    try:
        wide = np.array(rows, np.float64)
    except OverflowError:  # an integer beyond float64
        wide = np.array([[_to_float(value) for value in row] for row in rows])
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        index, column = map(int, np.argwhere(~finite)[0])
        field = f"{_field(fields, index)}.{names[column]}"
        raise InvalidInput(field, "is not a finite number that float32 holds", code="not_finite")
    for column, feature in enumerate(spec.features):
        _check_limits(values[:, column], fields, feature)
    return values


def _check_limits(values: FloatArray, fields: Sequence[str] | str, feature: FeatureSpec) -> None:
    for limit, beyond, side in (
        (feature.minimum, np.less, "below its minimum"),
        (feature.maximum, np.greater, "above its maximum"),
    ):
        if limit is None:
            continue
        outside = beyond(values, limit)
        if outside.any():
            index = int(outside.argmax())
            detail = f"{values[index]:g} is {side} of {limit:g} {feature.unit}".rstrip()
            raise InvalidInput(f"{_field(fields, index)}.{feature.name}", detail)


def _row(raw: Any, index: int, fields: Sequence[str] | str, names: list[str]) -> list[Any]:
    kind = type(raw)
    row: list[Any]
    if kind is list:
        if len(raw) != len(names):
            raise InvalidInput(_field(fields, index), f"has {len(raw)} values, the model takes {_features(names)}")
        row = raw
    elif kind is float or kind is int:
        if len(names) != 1:
            raise InvalidInput(_field(fields, index), f"is one number, the model takes {_features(names)}")
        row = [raw]
    elif kind is dict:
        if len(raw) != len(names) or any(name not in raw for name in names):
            _refuse_names(raw, _field(fields, index), names)
        row = [raw[name] for name in names]
    else:
        what = "must be a number, a list in manifest order or an object by feature name"
        raise InvalidInput(_field(fields, index), f"{what}, not {kind_of(raw)}")
    for name, value in zip(names, row, strict=True):
        if type(value) is not float and type(value) is not int:
            raise InvalidInput(f"{_field(fields, index)}.{name}", f"must be a number, not {kind_of(value)}")
    return row


def _refuse_names(raw: dict[str, Any], field: str, names: list[str]) -> None:
    for name in raw:
        if name not in names:
            raise InvalidInput(f"{field}.{name[:64]}", f"is no feature; the model takes {_features(names)}")
    missing = next(name for name in names if name not in raw)
    raise InvalidInput(f"{field}.{missing}", f"is missing; the model takes {_features(names)}")


def _field(fields: Sequence[str] | str, index: int) -> str:
    return f"{fields}[{index}]" if isinstance(fields, str) else fields[index]


def _features(names: list[str]) -> str:
    return f"{len(names)} feature{'s' if len(names) > 1 else ''} ({', '.join(names)})"


def _to_float(value: float | int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
