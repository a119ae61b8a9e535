"""What request bodies and queries may hold; decoding them into the core's requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.core.errors import InvalidInput
from service.core.requests import PredictRequest
from service.core.types import FloatArray, GapPolicy, ModelSpec, of_tuple
from service.http.errors import MalformedBody
from service.http.observations import observations_array
from service.http.times import parse_times

STEP_MAX = 2**53  # the largest integer that every JSON client reads exactly

_MARKS_EACH = 4  # of one observation besides its values': around it, and around its time
_MARKS_ELSE = 4000  # whatever else a small body may be nested into: that is for the parser to name

_request = of_tuple(PredictRequest)

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """Common to all bodies: types are not coerced. Unknown fields are collected, then refused by name (`decode`):
    as `extra="forbid"` pydantic would first build an error for each of them, a million for a hostile body."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, json_schema_extra={"additionalProperties": False}
    )


_NOT_GIVEN: dict[str, Any] = {"type": "null"}
_ONE_OBSERVATION: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "description": "for a model of one feature"},
        {"type": "array", "items": {"type": "number"}, "description": "in the model's order"},
        {"type": "object", "additionalProperties": {"type": "number"}, "description": "by feature name"},
    ]
}
_ONE_TIME: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "format": "date-time", "description": "ISO 8601 with an offset"},
        {"type": "number", "description": "seconds since 1970"},
    ]
}


class SeveralBody(Body):
    """One of `observation` and `observations`. An observation is a number (for a single feature), a list in manifest
    order or an object by feature name."""

    observation: Any = Field(
        default=None,
        description="One observation, for all features.",
        json_schema_extra={"anyOf": [*_ONE_OBSERVATION["anyOf"], _NOT_GIVEN]},
    )
    observations: list[Any] | None = Field(
        default=None, description="Several, oldest first.", json_schema_extra={"items": _ONE_OBSERVATION}
    )


class ObservedBody(SeveralBody):
    """Observations of one client; times likewise. A time is ISO 8601 with an offset, or epoch seconds. `step` names
    the first observation."""

    step: int | None = Field(
        default=None, ge=1, le=STEP_MAX, description="The number of the first observation; 1 for a new client."
    )
    time: Any = Field(
        default=None,
        description="When it was observed.",
        json_schema_extra={"anyOf": [*_ONE_TIME["anyOf"], _NOT_GIVEN]},
    )
    times: list[Any] | None = Field(
        default=None, description="When each was observed.", json_schema_extra={"items": _ONE_TIME}
    )


class PredictBody(ObservedBody):
    """A predict: besides the observations how far to look ahead, what to do about a gap, what to answer."""

    horizon: int = Field(default=1, ge=1, le=STEP_MAX, description="Look so many steps ahead at once.")
    gap: GapPolicy | None = Field(default=None, description="What to do where observations are missing.")
    returns: Literal["last", "all"] = Field(
        default="last", alias="return", description="`all`: one prediction for each observation too."
    )


class ItemBody(PredictBody):
    """A predict as one item of many: whose it is stands in it, and so does what is a header otherwise."""

    client: str
    idempotency_key: str | None = None


class ManyBody(Body):
    """Predicts of many clients. As lines (application/x-ndjson) each item is a line, and so is its answer."""

    items: list[ItemBody] = Field(min_length=1)


class HistoryBody(ObservedBody):
    """A history to prime a client from."""

    gap: GapPolicy | None = Field(default=None, description="What to do where observations are missing.")


def decode(kind: type[M], data: bytes, spec: ModelSpec, most: int) -> M:
    """The body in `data`. MalformedBody if it is not a JSON object, InvalidInput naming the first wrong field.

    A body with many more values than `most` observations of the model have is refused before it is parsed: 16 MB of
    `{},{},` would become 600 MB of objects only to be counted.
    """
    check_size(data, spec, most)
    return _parse(kind, data)


def check_size(data: bytes, spec: ModelSpec, most: int) -> None:
    """See `decode`: InvalidInput for a body with many more values than `most` observations have."""
    few = len(data) <= _MARKS_ELSE  # bytes: there can't be more marks
    if not few and _marks(data) > most * (len(spec.features) + _MARKS_EACH + _marks_in_names(spec)) + _MARKS_ELSE:
        raise InvalidInput("observations", f"are more than {most}, the most that one request takes")


def decode_small(kind: type[M], data: bytes) -> M:
    """The body in `data`, of a kind without observations; refused as by `decode`."""
    if _marks(data) > _MARKS_ELSE:
        raise MalformedBody("the body holds far more values than this request takes")
    return _parse(kind, data)


def _marks(data: bytes) -> int:
    """At least the number of values in `data`: each but a lone one has such a mark before or in it."""
    return sum(data.count(mark) for mark in (b",", b"[", b"{"))


def _parse(kind: type[M], data: bytes) -> M:
    try:
        body = kind.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if not problem["loc"]:
            raise MalformedBody(problem["msg"] if data else "the body is empty; a JSON object is needed") from None
        raise InvalidInput(_path(problem["loc"]), problem["msg"]) from None
    if body.model_extra:
        name = next(iter(body.model_extra))
        known = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        raise InvalidInput(name[:64], f"is no field of this request; it takes {known}")
    return body


def check_body(kind: type[M], raw: dict[str, Any]) -> M:
    """`raw`, a decoded JSON object, as a body. InvalidInput naming the first wrong field."""
    try:
        return _parse(kind, orjson.dumps(raw))
    except orjson.JSONEncodeError:  # it nests deeper than what may be written
        raise InvalidInput("item", "is nested too deeply") from None


def predict_request(
    body: ObservedBody,
    spec: ModelSpec,
    *,
    most: int,
    idempotency_key: str | None = None,
    observations: FloatArray | None = None,
) -> PredictRequest:
    """The core's request for `body`; at most `most` observations. InvalidInput naming the field.

    ``observations`` (n, F) float32, n >= 1: if they were read already, from where the body's own stood.
    """
    if observations is not None:
        _one_or_many(body.observation, body.observations, "observation", "observations")  # refuses both
    else:
        observations = observations_of(body, spec, most)
    if observations is None:
        raise InvalidInput("observation", "is missing; give `observation`, or several as `observations`")
    raw_times, time_fields = _one_or_many(body.time, body.times, "time", "times")
    times = None
    if raw_times is not None:
        n = len(observations)
        if len(raw_times) != n:
            raise InvalidInput("times", f"need one for each observation: {n}, got {len(raw_times)}")
        times = parse_times(raw_times, time_fields)
    gap, horizon = getattr(body, "gap", None), getattr(body, "horizon", 1)
    return _request((observations, times, body.step, idempotency_key, gap, horizon, spec))


class ForkBody(Body):
    """A fork: the new client's name."""

    to: str = Field(description="The new client's name.")


class LabelBody(Body):
    """A label's move: to which version, and from which generation of the labels, if that matters to the caller."""

    version: int = Field(ge=1, le=STEP_MAX, description="Which version the label is to name.")
    generation: int | None = Field(
        default=None, ge=0, le=STEP_MAX, description="Move it only from the labels of this generation."
    )


class PinBody(Body):
    """A pin: the label the client is to be served under."""

    label: str = Field(min_length=1, max_length=64, description="The label it is to be served under.")


def idempotency_key(key: str | None) -> str | None:
    """The Idempotency-Key header's value: 1-255 visible ASCII characters, None if there is no such header."""
    if key is not None and not is_idempotency_key(key):
        raise InvalidInput("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
    return key


def is_idempotency_key(key: str) -> bool:
    """Whether `key` is 1 to 255 visible ASCII characters."""
    return _KEY.fullmatch(key) is not None


def query_flag(query: Mapping[str, str], name: str) -> bool:
    """A yes or no of the query string, no if it is not there; InvalidInput naming it."""
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidInput(name, f"must be true or false, not {text[:40]!r}")
    return text == "true"


def query_int(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """An integer of the query string within [least, most]; InvalidInput naming it."""
    text = query.get(name)
    if text is None:
        return default
    if re.fullmatch(r"[0-9]{1,9}", text) is None or not least <= int(text) <= most:
        raise InvalidInput(name, f"must be an integer from {least} to {most}, not {text[:40]!r}")
    return int(text)


def observations_of(body: SeveralBody, spec: ModelSpec, most: int) -> FloatArray | None:
    """The body's observations, (n, F) float32 with n >= 1; None if it has none."""
    raw, fields = _one_or_many(body.observation, body.observations, "observation", "observations")
    if raw is None:
        return None
    if len(raw) == 0:
        raise InvalidInput("observations", "is empty; at least one observation is needed")
    if len(raw) > most:
        raise InvalidInput("observations", f"has {len(raw)} entries, {most} are the most that one request takes")
    return observations_array(raw, fields, spec)


def _one_or_many(one: Any, many: list[Any] | None, name: str, names: str) -> tuple[list[Any] | None, list[str] | str]:
    if one is not None and many is not None:
        raise InvalidInput(names, f"and `{name}` are both given; give one of them")
    if one is not None:
        return [one], [name]
    return many, names


def _marks_in_names(spec: ModelSpec) -> int:
    return sum(feature.name.count(mark) for feature in spec.features for mark in ",[{")


def _path(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
