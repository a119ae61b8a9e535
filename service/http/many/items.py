"""The items of a bulk request: those that hold one observation and nothing special as columns, the others one by one.

Both ways take and refuse the same. The columns are for speed: a body of hundreds of items is read with a handful of
operations on each of its columns, none of which looks at a single value in Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidInput, RecurveError
from service.core.many.asked import Asked
from service.core.many.together import One
from service.core.perlist import PerList
from service.core.types import FLOAT32_BOUND, ClientKey, GapPolicy, ModelSpec
from service.http.context import client_key
from service.http.schemas import STEP_MAX, ItemBody, check_body, is_idempotency_key, predict_request
from service.http.times import kind_of, parse_time

_PLAIN = frozenset(("client", "observation", "step", "time", "idempotency_key", "gap"))
_NUMBERS = frozenset((int, float))
_GAPS = frozenset((None, "fill", "restart", "reject"))
_NAMES_MOST = 32_768


class Refused(NamedTuple):
    """An item that is wrong by itself; `client` is the name it brings, if that is one."""

    place: int
    client: str | None
    error: RecurveError


@dataclass(slots=True)
class Items:
    """What the items ask: `asked` are those at `places`, rising; `ones` are the others. `every`: those of them that
    want one prediction per observation."""

    asked: Asked
    places: list[int]
    ones: list[One]
    every: set[int]
    refused: list[Refused]


class Names:
    """Keys of the clients of one model that were met lately, and of those that came together."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._known: dict[str, ClientKey] = {}
        self._lists = PerList(self._keys)

    def keys(self, names: list[Any]) -> tuple[ClientKey | None, ...]:
        """`key` of each, None for what is no text: a fleet's are looked up at once."""
        if set(map(type, names)) != {str}:
            return tuple([self.key(name) if type(name) is str else None for name in names])
        return self._lists.of(tuple(names))

    def _keys(self, names: tuple[str, ...]) -> tuple[ClientKey | None, ...]:
        return tuple(map(self.key, names))

    def key(self, name: str) -> ClientKey | None:
        """The key of a client; None for a name that is none."""
        known = self._known.get(name)
        if known is None:
            try:
                known = client_key(self._model, name)
            except InvalidInput:
                return None
            if len(self._known) >= _NAMES_MOST:
                self._known = {}
            self._known[name] = known
        return known


def read_items(raw: Sequence[Any], spec: ModelSpec, names: Names, most: int) -> Items:
    """`raw` decoded JSON, one for each item; at most `most` observations in one of them."""
    columns = _Columns(spec, names)
    shapes, left = _shapes(raw)
    for shape, places in shapes.items():
        if "client" in shape and "observation" in shape and _PLAIN.issuperset(shape):
            left += columns.take(shape, places, raw if len(places) == len(raw) else [raw[place] for place in places])
        else:
            left += places
    asked, at = columns.asked()
    items = Items(asked, at, [], set(), [])
    for place in sorted(left):
        _read_one(raw[place], place, spec, most, items)
    return items


def _shapes(raw: Sequence[Any]) -> tuple[dict[tuple[str, ...], list[int]], list[int]]:
    """The places of items by their fields' names, and those of what is no object."""
    if set(map(type, raw)) == {dict}:
        alike = set(map(tuple, raw))
        if len(alike) == 1:
            return {alike.pop(): list(range(len(raw)))}, []
    shapes: dict[tuple[str, ...], list[int]] = {}
    left: list[int] = []
    for place, item in enumerate(raw):
        if type(item) is dict:
            shapes.setdefault(tuple(item), []).append(place)
        else:
            left.append(place)
    return shapes, left


def _read_one(raw: Any, place: int, spec: ModelSpec, most: int, items: Items) -> None:
    client = raw.get("client") if type(raw) is dict else None
    try:
        if type(raw) is not dict:
            raise InvalidInput("item", f"must be an object, not {kind_of(raw)}")
        body = check_body(ItemBody, raw)
        key = client_key(spec.name, body.client)
        if body.idempotency_key is not None and not is_idempotency_key(body.idempotency_key):
            raise InvalidInput("idempotency_key", "must be 1 to 255 visible ASCII characters")
        request = predict_request(body, spec, most=most, idempotency_key=body.idempotency_key)
    except RecurveError as error:
        items.refused.append(Refused(place, client if type(client) is str else None, error))
        return
    items.ones.append(One(place, key, request))
    if body.returns == "all":
        items.every.add(place)


class _Columns:
    """Columns of the items taken so far; a value that an item does not name stands for none."""

    def __init__(self, spec: ModelSpec, names: Names) -> None:
        self._spec = spec
        self._names = names
        self._places: list[int] = []
        self._keys: tuple[ClientKey, ...] = ()
        self._observations: list[NDArray[np.float64]] = []
        self._steps: list[int] = []
        self._times: list[float] = []
        self._repeats: list[str | None] = []
        self._gaps: list[GapPolicy | None] = []

    def take(self, shape: tuple[str, ...], places: list[int], items: Sequence[dict[str, Any]]) -> list[int]:
        """Take `items`, which all have the fields of `shape`; the places of those that are not plain."""
        n, columns = len(items), {name: list(map(itemgetter(name), items)) for name in shape}
        plain = [True] * n
        observations = _numbers(columns["observation"], self._spec, plain)
        keys = self._names.keys(columns["client"])
        steps = _steps(columns["step"], plain) if "step" in shape else [0] * n
        times = _times(columns["time"], plain) if "time" in shape else [math.nan] * n
        repeats = columns.get("idempotency_key", [None] * n)
        if any(repeats):
            for at, key in enumerate(repeats):
                if key is not None and not (type(key) is str and is_idempotency_key(key)):
                    plain[at] = False
        gaps = columns.get("gap", [None] * n)
        if "gap" in shape:
            for at, gap in enumerate(gaps):
                if not (gap is None or (type(gap) is str and gap in _GAPS)):
                    plain[at] = False
        if None not in keys and all(plain):
            self._places += places
            self._keys += keys  # type: ignore[operator]  # none of them is None
            self._observations.append(observations)
            self._steps += steps
            self._times += times
            self._repeats += repeats
            self._gaps += gaps
            return []
        left, taken = [], []
        for at, (place, key) in enumerate(zip(places, keys, strict=True)):
            if key is None or not plain[at]:
                left.append(place)
                continue
            self._places.append(place)
            taken.append(key)
            self._observations.append(observations[at : at + 1])
            self._steps.append(steps[at])
            self._times.append(times[at])
            self._repeats.append(repeats[at])
            self._gaps.append(gaps[at])
        self._keys += tuple(taken)
        return left

    def asked(self) -> tuple[Asked, list[int]]:
        """What was taken, in the order of places."""
        places = np.array(self._places, np.intp)
        whole = np.concatenate(self._observations) if self._observations else np.empty((0, len(self._spec.features)))
        asked = Asked(
            self._keys,
            whole.astype(np.float32),
            np.array(self._steps, np.int64) if any(self._steps) else None,
            np.array(self._times) if not all(map(math.isnan, self._times)) else None,
            self._repeats if any(self._repeats) else None,
            self._gaps if any(self._gaps) else None,
        )
        if (places[1:] < places[:-1]).any():
            order = np.argsort(places)
            return asked.in_order(order), places[order].tolist()
        return asked, self._places


def _numbers(raw: list[Any], spec: ModelSpec, plain: list[bool]) -> NDArray[np.float64]:
    """Observations as (n, F) float64, zeros where one is not `plain`: it is refused, or read, with more care."""
    features = [feature.name for feature in spec.features]
    width, rows = len(features), raw
    kinds = set(map(type, raw))
    if width == 1 and kinds <= _NUMBERS:
        rows = [[value] for value in raw]
    elif kinds == {dict}:
        named = set(features)
        if all(row.keys() == named for row in raw):
            rows, kinds = [[row[name] for name in features] for row in raw], {list}
    usual = kinds == {list} or rows is not raw
    if not (usual and set(map(len, rows)) <= {width} and set(map(type, chain.from_iterable(rows))) <= _NUMBERS):
        rows = [_row(row, features) or [math.nan] * width for row in raw]
    numbers = np.array(rows, np.float64)
    fit = np.abs(numbers) < FLOAT32_BOUND
    for column, feature in enumerate(spec.features):
        if feature.minimum is not None:
            fit[:, column] &= numbers[:, column] >= feature.minimum
        if feature.maximum is not None:
            fit[:, column] &= numbers[:, column] <= feature.maximum
    if not fit.all():
        wrong = ~fit.all(axis=1)
        numbers[wrong] = 0.0
        for at in np.flatnonzero(wrong).tolist():
            plain[at] = False
    return numbers


def _row(raw: Any, features: list[str]) -> list[float] | None:
    """One observation's numbers; None if it is anything that has to be looked at with more care."""
    if type(raw) is dict and raw.keys() == set(features):
        raw = [raw[name] for name in features]
    elif type(raw) in _NUMBERS:
        raw = [raw]
    if type(raw) is list and len(raw) == len(features) and _NUMBERS.issuperset(map(type, raw)):
        return raw
    return None


def _steps(raw: list[Any], plain: list[bool]) -> list[int]:
    steps = []
    for at, step in enumerate(raw):
        if step is not None and not (type(step) is int and 1 <= step <= STEP_MAX):
            plain[at] = False
            step = None
        steps.append(step or 0)
    return steps


def _times(raw: list[Any], plain: list[bool]) -> list[float]:
    times = []
    for at, time in enumerate(raw):
        seconds = math.nan
        if time is not None:
            try:
                seconds = parse_time(time, "time")
            except InvalidInput:
                plain[at] = False
        times.append(seconds)
    return times
