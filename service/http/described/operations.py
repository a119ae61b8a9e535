"""What can be asked of the service, one entry for each method of each path: what goes in, what comes out, what refuses.

Tests hold the table to the app's routes, to the queries they take and to the answers they give.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from service.http.described import answers
from service.http.envelope import StateBody
from service.http.schemas import ForkBody, HistoryBody, LabelBody, ManyBody, PinBody, PredictBody
from service.http.supposing import ForecastBody

CLIENT = "/v1/models/{model}/clients/{client}"
MODEL = "/v1/models/{model}"

ORDER = ("step_conflict", "key_conflict", "already_absorbed", "time_conflict", "too_soon", "gap")
BODY = ("malformed_body", "stalled", "body_too_large", "body_encoded")
VALUES = ("invalid", "not_finite", "unsupported")
STORE = ("contended", "store_unavailable")
ADMIN = ("not_admin", "no_admin")
NO_MODEL = ("model_not_found", "not_ready")
NO_CLIENT = (*NO_MODEL, "client_not_found")


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query string; `schema` is its JSON schema."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `summary` is what the README's table says it does.

    `answer` is what `status` comes with: a schema, the media type of what is none, or None for nothing. `refusals` are
    codes of the error table. `admin`: the administrator's token is needed. `key`: it takes an Idempotency-Key.
    """

    method: str
    path: str
    tag: str
    summary: str
    answer: type[BaseModel] | str | None
    body: type[BaseModel] | None = None
    query: tuple[Query, ...] = ()
    refusals: tuple[str, ...] = ()
    status: int = 200
    also: dict[int, str] = field(default_factory=dict)
    example: Any = None
    admin: bool = False
    key: bool = False


def _number(least: int, most: int, default: int | None = None) -> dict[str, Any]:
    bounds: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    return bounds if default is None else {**bounds, "default": default}


_FLAG = {"type": "boolean", "default": False}
_AFTER = Query("after", "Go on after the `next` of the page before.", {"type": "string"})
_PREFIX = Query("prefix", "Only names that begin so.", {"type": "string"})

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", f"{CLIENT}/predict", "Predict", "absorb one or several observations, answer the next value",
        answers.Answer, PredictBody, key=True, example={"observation": [21.3, 12.0, 1013.0]},
        refusals=(*BODY, *NO_MODEL, *ORDER, *VALUES, "at_capacity", *STORE),
    ),
    Operation(
        "POST", f"{MODEL}/predict", "Predict", "predict for many clients at once; as lines of JSON for any number",
        answers.Answers, ManyBody,
        example={
            "items": [
                {"client": "roof-7", "observation": [21.3, 12.0, 1013.0]},
                {"client": "roof-8", "observation": [19.0, 12.2, 1013.5]},
            ]
        },
        refusals=(*BODY, *NO_MODEL, "invalid"),
    ),
    Operation(
        "GET", f"{CLIENT}/forecast", "Predict", "look ahead without moving the state", answers.Answer,
        query=(Query("horizon", "How many steps.", _number(1, 10**9 - 1, 24)),),
        refusals=(*NO_CLIENT, "invalid", "unsupported", "store_unavailable"),
    ),
    Operation(
        "POST", f"{CLIENT}/forecast", "Predict", "look ahead after observations that are only supposed",
        answers.Answer, ForecastBody, example={"observations": [[20.4, 12.1, 1013.2]], "horizon": 3},
        refusals=(*BODY, *NO_CLIENT, *VALUES, "store_unavailable"),
    ),
    Operation(
        "PUT", f"{CLIENT}/history", "Predict", "begin anew from a history", answers.Answer, HistoryBody,
        example={"observations": [[21.3, 12.0, 1013.0], [20.4, 12.1, 1013.2]]},
        refusals=(*BODY, *NO_MODEL, *VALUES, "at_capacity", *STORE),
    ),
    Operation(
        "GET", CLIENT, "Clients", "what is known of a client, live errors included", answers.Client,
        refusals=(*NO_CLIENT, "invalid", "store_unavailable"),
    ),
    Operation(
        "PUT", CLIENT, "Clients", "pin a client to a label", answers.Client, PinBody, example={"label": "stable"},
        refusals=(*BODY, *NO_CLIENT, "label_not_found", "invalid", *STORE),
    ),
    Operation(
        "DELETE", CLIENT, "Clients", "forget a client", None, status=204,
        refusals=(*NO_CLIENT, "invalid", "store_unavailable"),
    ),
    Operation(
        "GET", f"{CLIENT}/gates", "Clients",
        "what each gate of each recurrent layer did over the last observations", answers.GateTrace,
        query=(Query("last", "How many observations.", _number(1, 512, 48)),),
        refusals=(*NO_CLIENT, "invalid", "unsupported", "store_unavailable"),
    ),
    Operation(
        "GET", f"{CLIENT}/state", "Clients", "export a client's state", StateBody,
        refusals=(*NO_CLIENT, "invalid", "store_unavailable"),
    ),
    Operation(
        "PUT", f"{CLIENT}/state", "Clients", "import a state", answers.Moved, StateBody,
        query=(
            Query("rebuild", "Take a state of other weights too, and rebuild it at its next step.", _FLAG),
            Query("replace", "Overwrite a client that exists.", _FLAG),
        ),
        status=201, also={200: "It was there: overwritten, or the same import again."},
        refusals=(*BODY, *NO_MODEL, "client_exists", "foreign_state", *VALUES, "at_capacity", *STORE),
    ),
    Operation(
        "POST", f"{CLIENT}/fork", "Clients", "copy a client to a new one", answers.Moved, ForkBody,
        status=201, also={200: "The same fork again."}, example={"to": "what-if"},
        refusals=(*BODY, *NO_CLIENT, "client_exists", "invalid", "at_capacity", *STORE),
    ),
    Operation(
        "GET", f"{MODEL}/clients", "Clients", "list clients", answers.Clients,
        query=(_PREFIX, _AFTER, Query("limit", "Names of a page, at most.", _number(1, 1000, 100))),
        refusals=(*NO_MODEL, "invalid", "store_unavailable"),
    ),
    Operation(
        "DELETE", f"{MODEL}/clients", "Clients", "forget all clients whose names begin alike", answers.Forgotten,
        query=(_PREFIX, Query("all", "With an empty prefix: forget every client.", _FLAG), _AFTER),
        refusals=(*NO_MODEL, "invalid", "store_unavailable"),
    ),
    Operation("GET", "/v1/models", "Models", "what is served", answers.Models),
    Operation("GET", MODEL, "Models", "one model: what it takes and promises", answers.Model, refusals=NO_MODEL),
    Operation(
        "GET", f"{MODEL}/versions/{{number}}", "Models",
        "the manifest of a version: what it promises and how it was judged", answers.Version, refusals=NO_MODEL,
    ),
    Operation(
        "GET", f"{MODEL}/versions/{{number}}/evidence", "Models", "what live traffic said of a candidate",
        answers.Evidence, refusals=(*NO_MODEL, "evidence_not_found"),
    ),
    Operation(
        "GET", f"{MODEL}/labels", "Models", "which version each label names", answers.Labels, admin=True,
        refusals=(*ADMIN, "model_not_found", "repository_unavailable"),
    ),
    Operation(
        "PUT", f"{MODEL}/labels/{{label}}", "Models", "move a label: promote, roll back", answers.Labels, LabelBody,
        admin=True, example={"version": 2},
        refusals=(*ADMIN, *BODY, "model_not_found", "labels_moved", "version_unfit", "read_only", "invalid",
                  "repository_unavailable"),
    ),
    Operation(
        "DELETE", f"{MODEL}/labels/{{label}}", "Models", "take a label away", answers.Labels, admin=True,
        query=(Query("generation", "Only from the labels of this generation.", _number(0, 2**53)),),
        refusals=(*ADMIN, "model_not_found", "label_not_found", "label_kept", "labels_moved", "read_only", "invalid",
                  "repository_unavailable"),
    ),
    Operation("GET", "/livez", "Operations", "200 while the process works", answers.Alive),
    Operation(
        "GET", "/readyz", "Operations", "200 once a prediction would be answered, 503 before", answers.Ready,
        also={503: "Not ready: `reason` says why."},
    ),
    Operation(
        "GET", "/metrics", "Operations", "metrics for Prometheus, those of all workers together", "text/plain",
    ),
    Operation("GET", "/openapi.json", "Operations", "this API as an OpenAPI document", "application/json"),
    Operation("GET", "/docs", "Operations", "this API as a page to read and to try", "text/html"),
)  # fmt: skip
