"""What a look ahead may suppose: observations that were not made, and what is known of those to come."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from service.core.errors import InvalidInput
from service.core.supposing import Supposed
from service.core.types import ModelSpec
from service.http.observations import future_array
from service.http.schemas import STEP_MAX, SeveralBody, observations_of

HORIZON = 24  # how far a forecast looks, where nothing else is said


class ForecastBody(SeveralBody):
    """A look ahead after observations that are only supposed, and with what is known of the steps looked at."""

    horizon: int = Field(default=HORIZON, ge=1, le=STEP_MAX, description="How many steps.")
    future: list[dict[str, Any]] | None = Field(
        default=None,
        description="What is known of the observations to come, an object by feature name for each step but the last; "
        "what is not given is taken from the predictions.",
        json_schema_extra={"items": {"type": "object", "additionalProperties": {"type": "number"}}},
    )


def supposition(body: ForecastBody, spec: ModelSpec, *, most: int) -> Supposed:
    """What `body` supposes; at most `most` observations. InvalidInput naming the field."""
    observations, future = observations_of(body, spec, most), None
    if observations is None:
        observations = np.empty((0, len(spec.features)), np.float32)
    if body.future is not None:
        if len(body.future) != body.horizon - 1:
            wanted = f"needs one for each step but the last: {body.horizon - 1}, got {len(body.future)}"
            raise InvalidInput("future", wanted)
        future = future_array(body.future, "future", spec)
    return Supposed(observations, future)
