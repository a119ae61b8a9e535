"""Observations of a request as one float32 array: numbers, lists in manifest order, or objects by feature name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NoReturn

import numpy as np

from service.core.errors import InvalidInput
from service.core.types import FLOAT32_BOUND, FeatureSpec, FloatArray, ModelSpec
from service.http.times import kind_of

FEW = 8  # rows up to which one after the other is as fast as all at once
_NUMBERS = {int, float}  # as types: a bool is no number


def observations_array(raw: Sequence[Any], fields: Sequence[str] | str, spec: ModelSpec) -> FloatArray:
    """``raw`` decoded JSON, one entry per observation -> (n, F) float32.

    `fields` names the entries for messages: one name each, or one name they are indexed under. InvalidInput naming
    the value (`observations[3].pressure`): not a number, not finite after the cast to float32, too few or too many,
    a name that is no feature, beyond the feature's limits.
    """
    features = spec.features
    if len(raw) > FEW:
        array = _at_once(raw, spec)
        if array is not None:
            return array
    if len(raw) == 1 and (row := _usual(raw[0], spec)) is not None:
        return np.ndarray((1, len(row)), np.float32, spec.row.pack(*row))  # a third less than of a list of lists
    rows = [_usual(one, spec) or _row(one, index, fields, features) for index, one in enumerate(raw)]
    return np.array(rows, np.float32)


def _usual(raw: Any, spec: ModelSpec) -> list[Any] | None:
    """A list in which all is as it should be; None for whatever else."""
    if type(raw) is not list or len(raw) != len(spec.ranges):
        return None
    for value, (least, most) in zip(raw, spec.ranges, strict=True):
        if (type(value) is not float and type(value) is not int) or not least <= value <= most:
            return None
    return raw


def _at_once(raw: Sequence[Any], spec: ModelSpec) -> FloatArray | None:
    """`observations_array` in a few passes over all values, several times as fast; None if that is not the way, be it
    because something is wrong: the other one then names it."""
    features, kinds = spec.features, set(map(type, raw))
    columns = len(features)
    values: Iterable[Any]
    if kinds <= _NUMBERS and columns == 1:
        values = raw
    elif kinds == {list} and set(map(len, raw)) == {columns}:
        values = list(chain.from_iterable(raw))
    elif kinds == {dict} and set(map(len, raw)) == {columns}:
        names = [feature.name for feature in features]
        try:
            values = list(chain.from_iterable(zip(*(map(itemgetter(name), raw) for name in names), strict=True)))
        except KeyError:
            return None
    else:
        return None
    if not set(map(type, values)) <= _NUMBERS:
        return None
    try:
        wide = np.fromiter(values, np.float64, len(raw) * columns).reshape(-1, columns)
    except OverflowError:  # an integer that not even float64 holds
        return None
    low, high = wide.min(axis=0), wide.max(axis=0)  # NaN if one of them is
    ends = zip(low.tolist(), high.tolist(), spec.ranges, strict=True)
    if not all(least <= lowest and highest <= most for lowest, highest, (least, most) in ends):
        return None
    return wide.astype(np.float32)


def future_array(raw: Sequence[dict[str, Any]], field: str, spec: ModelSpec) -> FloatArray:
    """``raw``, an object by feature name for each step -> (n, F) float32, NaN for what is not given.

    InvalidInput naming the value, as of `observations_array`.
    """
    table = np.full((len(raw), len(spec.features)), np.nan, np.float32)
    columns = {feature.name: column for column, feature in enumerate(spec.features)}
    for index, row in enumerate(raw):
        for name, value in row.items():
            if name not in columns:
                takes = f"is no feature; the model takes {_listed(spec.features)}"
                raise InvalidInput(f"{field}[{index}].{name[:64]}", takes)
            _check_value(value, spec.features[columns[name]], field, index)
            table[index, columns[name]] = value
    return table


def _row(raw: Any, index: int, fields: Sequence[str] | str, features: Sequence[FeatureSpec]) -> list[Any]:
    kind = type(raw)
    row: list[Any]
    if kind is list:
        if len(raw) != len(features):
            raise InvalidInput(_field(fields, index), f"has {len(raw)} values, the model takes {_listed(features)}")
        row = raw
    elif kind is float or kind is int:
        if len(features) != 1:
            raise InvalidInput(_field(fields, index), f"is one number, the model takes {_listed(features)}")
        row = [raw]
    elif kind is dict:
        if len(raw) != len(features) or any(feature.name not in raw for feature in features):
            _refuse_names(raw, _field(fields, index), features)
        row = [raw[feature.name] for feature in features]
    else:
        what = "must be a number, a list in manifest order or an object by feature name"
        raise InvalidInput(_field(fields, index), f"{what}, not {kind_of(raw)}")
    for feature, value in zip(features, row, strict=True):
        _check_value(value, feature, fields, index)
    return row


def _check_value(value: Any, feature: FeatureSpec, fields: Sequence[str] | str, index: int) -> None:
    if type(value) is not float and type(value) is not int:
        raise InvalidInput(f"{_field(fields, index)}.{feature.name}", f"must be a number, not {kind_of(value)}")
    if not -FLOAT32_BOUND < value < FLOAT32_BOUND:  # so for NaN too
        what = "is not a finite number that float32 holds"
        raise InvalidInput(f"{_field(fields, index)}.{feature.name}", what, code="not_finite")
    if feature.minimum is not None and value < feature.minimum:
        _refuse_value(value, f"below its minimum of {feature.minimum:g}", _field(fields, index), feature)
    if feature.maximum is not None and value > feature.maximum:
        _refuse_value(value, f"above its maximum of {feature.maximum:g}", _field(fields, index), feature)


def _refuse_value(value: float, where: str, field: str, feature: FeatureSpec) -> NoReturn:
    raise InvalidInput(f"{field}.{feature.name}", f"{value:g} is {where} {feature.unit}".rstrip())


def _refuse_names(raw: dict[str, Any], field: str, features: Sequence[FeatureSpec]) -> NoReturn:
    names = [feature.name for feature in features]
    for name in raw:
        if name not in names:
            raise InvalidInput(f"{field}.{name[:64]}", f"is no feature; the model takes {_listed(features)}")
    missing = next(name for name in names if name not in raw)
    raise InvalidInput(f"{field}.{missing}", f"is missing; the model takes {_listed(features)}")


def _field(fields: Sequence[str] | str, index: int) -> str:
    return f"{fields}[{index}]" if isinstance(fields, str) else fields[index]


def _listed(features: Sequence[FeatureSpec]) -> str:
    names = ", ".join(feature.name for feature in features)
    return f"{len(features)} feature{'s' if len(features) > 1 else ''} ({names})"
