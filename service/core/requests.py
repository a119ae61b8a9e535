"""What is asked of the predictor and what it answers, whatever the protocol outside.

What every request makes anew is a NamedTuple: a frozen dataclass takes five times as long to make, which is 2 % of a
predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from service.core.types import FloatArray, GapPolicy, ModelSpec, Status


class PredictRequest(NamedTuple):
    """Observations to absorb, oldest first; all or none are.

    ``observations`` (n, F) float32 in raw units, n >= 1. ``times`` n epoch seconds, or None. `step` names the
    first observation. `gap` None: the model's default. `horizon` >= 1: how far the answer looks ahead. `checked`: the
    spec whose widths and limits the observations were held against already, finite as they are.
    """

    observations: FloatArray
    times: tuple[float, ...] | None = None
    step: int | None = None
    idempotency_key: str | None = None
    gap: GapPolicy | None = None
    horizon: int = 1
    checked: ModelSpec | None = None


class StateInfo(NamedTuple):
    """How the state behind an answer came to be.

    `context` counts the observations that stand behind it, `filled` the missing steps this request filled.
    `last_seen` is when an expired client was last heard of (epoch seconds), None otherwise.
    """

    status: Status
    reason: str | None
    context: int
    filled: int = 0
    last_seen: float | None = None


class Previous(NamedTuple):
    """The last prediction against what was then observed: ``predicted`` and ``observed`` (K,) float32.

    `observed` is NaN for a target that no feature observes. ``anomaly`` (K,) float32 or None: how large the error is
    in units of the client's own earlier ones (`scoring.anomaly`), NaN where too few are known.
    """

    predicted: FloatArray
    observed: FloatArray
    anomaly: FloatArray | None = None


class Marks(NamedTuple):
    """What a request's scored observations add to the live errors of the version that predicted them.

    `sums` holds MARKS numbers for each target in turn: observations scored, absolute, squared and naive squared error,
    observations covered by their interval, observations that had one. Zeros for a target that no feature observes.
    """

    sums: tuple[float, ...]


MARKS = 6


class Paired(NamedTuple):
    """A request's errors under a candidate against those of what is served, step by step.

    `fingerprint` is the candidate's, `steps` how many were paired, `sum` that of their differences, each clipped to
    [-1, 1]; above zero where the candidate was better.
    """

    fingerprint: str
    steps: int
    sum: float


class Answer(NamedTuple):
    """What a predict, a priming or a forecast answers.

    ``y`` (n, K, 1 + Q) float32: the prediction after each observation of the request, the last one for
    `step` + 1. ``ahead`` (horizon, K, 3) float32 or None: point forecast, lower and upper bound for
    `step` + 1 ... `step` + horizon; bounds NaN where the model has none. ``interval`` (n, K, 2) float32 or None:
    the bounds of each row of y, at `level`. `spec` is the version that answered; a replay may be of an older `version`
    than the spec's. `begun` is when this life of the client began (epoch seconds), 0 where nothing was absorbed; one
    that was deleted or primed begins another. `marks`: None of a replay, and where nothing was scored that this version
    predicted.
    """

    spec: ModelSpec
    version: int
    client: str
    step: int
    y: FloatArray
    interval: FloatArray | None
    ahead: FloatArray | None
    previous: Previous | None
    state: StateInfo
    level: float | None
    replayed: bool = False
    begun: float = 0.0
    marks: Marks | None = None
    paired: Paired | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """Live errors of one target over the client's recent steps (exponentially weighted, about `window` steps).

    `skill` is 1 - rmse / naive_rmse, None where nothing ever changed. `factor`: the next interval is so many times as
    wide as the model's own; `coverage` and it are None where the model has no interval.
    """

    target: str
    mae: float
    rmse: float
    naive_rmse: float
    skill: float | None
    coverage: float | None
    factor: float | None


@dataclass(frozen=True, slots=True)
class Beside:
    """The track that shadows a client. `context` as in StateInfo, 0 for one that is lost; `compared` steps, and their
    mean difference in [-1, 1], above zero where the candidate was nearer (None before the first)."""

    version: int | None
    fingerprint: str
    context: int
    compared: int
    mean: float | None


@dataclass(frozen=True, slots=True)
class ClientView:
    """What is known of one client. Times are epoch seconds. `version` is the one its state was made by, if served."""

    model: str
    client: str
    label: str
    version: int | None
    fingerprint: str
    step: int
    context: int
    context_kept: int
    last_time: float | None
    created: float
    touched: float
    expires: float
    record_bytes: int
    scored: int
    live: tuple[Live, ...]
    shadow: Beside | None = None


@dataclass(frozen=True, slots=True)
class GateTrace:
    """Gate activations over the last observations of a client's context.

    ``observations`` (n, F) float32, NaN rows where a missing step was filled; `activations[i]` (n, gates, units)
    float32 of the spec's i-th gate layer. The context is replayed from a fresh state.
    """

    spec: ModelSpec
    client: str
    step: int
    observations: FloatArray
    activations: tuple[FloatArray, ...]
