"""What answers hold, for those who read the description: `service.http.render` makes them, tests hold them to this."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def _needless(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


# A member that is left out where there is nothing to say, rather than null.
_ABSENT: Any = Field(default=None, json_schema_extra=_needless)

Status = Literal["started", "carried", "rebuilt", "restarted"]
Number = Annotated[float | None, Field(description="null: no number")]


class Told(BaseModel):
    """Common to all answers: their members are exactly these."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Interval(Told):
    """Holds the truth with probability `level`."""

    level: float
    lower: float
    upper: float


class Predicted(Told):
    """What is expected of one target at one step. `interval` is null where the model has none."""

    value: float
    interval: Interval | None
    unit: str


class Marked(Told):
    """The last prediction of one target beside what was then observed. `anomaly`: the error in units of the client's
    own earlier ones, null for the first 20."""

    predicted: Number
    observed: Number
    error: Number
    anomaly: Number


class State(Told):
    """How the state came to be, and why it is not simply carried; how many observations stand behind it, and how many
    missing steps this request filled in. `last_seen`: since when an expired client was not heard of."""

    status: Status
    reason: str | None
    context: int
    filled: int
    last_seen: str = _ABSENT


class Ahead(Told):
    """A prediction so many steps ahead."""

    horizon: int
    prediction: dict[str, Predicted]


class AtStep(Told):
    """The prediction made after the observation of that number."""

    step: int
    prediction: dict[str, Predicted]


class Answer(Told):
    """What comes after the observation of number `step`. Predictions are by target."""

    model: str
    version: int
    client: str
    step: int
    prediction: dict[str, Predicted]
    previous: dict[str, Marked] | None
    state: State
    forecast: list[Ahead] = _ABSENT
    predictions: list[AtStep] = _ABSENT


class Live(Told):
    """How good predictions of one target were over about the last 256 observations; `factor`: how many times as wide
    as the model's own the next interval is."""

    mae: Number
    rmse: Number
    naive_rmse: Number
    skill: Number
    coverage: Number
    factor: Number


class Shadow(Told):
    """The candidate's track of the client: `mean` difference over `compared` steps, above zero where it was nearer."""

    version: int | None
    fingerprint: str
    context: int
    compared: int
    mean: Number


class Client(Told):
    """What is known of a client. `version` is the one its state was made by, null if that is not served any more."""

    model: str
    client: str
    label: str
    version: int | None
    fingerprint: str
    step: int
    context: int
    context_kept: int
    last_time: str | None
    created: str | None
    touched: str | None
    expires: str | None
    record_bytes: int
    scored: int
    live: dict[str, Live]
    shadow: Shadow = _ABSENT


class Moved(Told):
    """Where a client stands whose state was brought there; `state` is what its next answer will say of it."""

    model: str
    version: int
    client: str
    fingerprint: str
    step: int
    state: State


class Gates(Told):
    """One recurrent layer: of each gate a list per observation of one number per unit."""

    layer: str
    cell: str
    units: int
    gates: dict[str, list[list[Number]]]


class GateTrace(Told):
    """Gate activations over a client's last observations, oldest first; nulls where a missing step was filled in."""

    model: str
    version: int
    client: str
    step: int
    features: list[str]
    observations: list[list[Number]]
    layers: list[Gates]


class Clients(Told):
    """Some of a model's clients, in no order; `next` is the `after` of the next page, null on the last one."""

    model: str
    clients: list[str]
    next: str | None


class Forgotten(Told):
    """How many clients were forgotten; `next` is the `after` to go on with, null when all are done."""

    model: str
    deleted: int
    next: str | None


class FeatureTold(Told):
    """One value of an observation; what lies outside its limits is refused."""

    name: str
    unit: str
    minimum: Number
    maximum: Number


class TargetTold(Told):
    """One predicted value; `scale` is its standard deviation in training."""

    name: str
    unit: str
    scale: float


class Model(Told):
    """A model as it is served, and what its stable version promises."""

    name: str
    labels: dict[str, int]
    generation: int
    versions: list[int]
    version: int
    fingerprint: str
    architecture: str
    features: list[FeatureTold]
    targets: list[TargetTold]
    interval_s: Number
    level: Number
    context_length: int
    looks_ahead: bool


class Models(Told):
    """All that is served here."""

    models: list[Model]


class Version(Told):
    """A version's manifest, as it was published."""

    version: int
    manifest: dict[str, Any]


class Evidence(BaseModel):
    """What live traffic said of a candidate, as it is kept beside the version: minutes, steps, mean difference with
    its confidence sequence, wealths, verdict."""

    model_config = ConfigDict(extra="allow")


class Labels(Told):
    """Which version each label names; `generation` counts their changes."""

    model: str
    generation: int
    labels: dict[str, int]


class Alive(Told):
    """The process works."""

    live: Literal[True]


class Ready(Told):
    """Whether a prediction would be answered, and `reason` where it would not; what did not load."""

    ready: bool
    models: dict[str, dict[str, int]]
    store: str
    problems: list[dict[str, Any]]
    reason: str = _ABSENT


class ItemAnswer(Answer):
    """What a request of its own would have been answered; `replayed` where that is a stored answer."""

    replayed: Literal[True] = _ABSENT


class ItemProblem(BaseModel):
    """Why an item was refused; nothing of it has moved, unless it says `in_doubt`. `retry_after`: in seconds."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    client: str | None
    type: str
    title: str
    status: int
    detail: str
    error: str
    code: str
    retry_after: int = _ABSENT


class Answers(Told):
    """The answers to the items, in their order."""

    model: str
    results: list[ItemAnswer | ItemProblem]


class Problem(BaseModel):
    """An error (RFC 9457). `error` repeats `detail`. What else is known rides along: `expected_step`, `field`, …"""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    error: str
    code: str = _ABSENT
    request_id: str = _ABSENT
    expected_step: int = _ABSENT
    field: str = _ABSENT
    in_doubt: bool = _ABSENT
