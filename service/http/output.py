"""JSON out: float32 values keep their shortest form, numbers that are not finite become null."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response

JSON = "application/json"


def encode(body: Any) -> bytes:
    """`body` as JSON. numpy scalars and arrays are written as they are: a float32 21.43 reads 21.43."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(body: Any, status: int = 200, *, content_type: str = JSON) -> Response:
    """`body` as an answer."""
    return Response(encode(body), status, content_type=content_type)
