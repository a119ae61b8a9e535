"""JSON out: float32 values keep their shortest form, numbers that are not finite become null."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response

JSON = "application/json"


def json_response(body: Any, status: int = 200, *, content_type: str = JSON) -> Response:
    """`body` as JSON. numpy scalars and arrays are written as they are: a float32 21.43 reads 21.43."""
    data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, status, content_type=content_type)
