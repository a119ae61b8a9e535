"""Predicting: absorb observations, look ahead, prime from history."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.core.requests import Answer
from service.http import render
from service.http.body import read_body
from service.http.context import ANSWER, Collaborators, Environ, check_query, client_key
from service.http.output import json_response
from service.http.schemas import HistoryBody, PredictBody, decode, idempotency_key, predict_request, query_int

HORIZON = 24  # a forecast's, where none is asked for


def blueprint(deps: Collaborators) -> Blueprint:
    """`…/predict`, `…/forecast` and `…/history` of a client."""
    routes = Blueprint("predict", __name__)

    @routes.post("/v1/models/<model>/clients/<client>/predict")
    def predict(model: str, client: str) -> Response:
        spec = deps.registry.model(model).labelled().spec
        key, environ = client_key(model, client), request.environ
        check_query(environ)
        body = decode(PredictBody, read_body(environ, deps.limits.max_body_bytes), spec, deps.limits.max_observations)
        repeats = idempotency_key(environ.get("HTTP_IDEMPOTENCY_KEY"))
        asked = predict_request(body, spec, most=deps.limits.max_observations, idempotency_key=repeats)
        return _answered(environ, deps.predictor.predict(key, asked), every=body.returns == "all")

    @routes.put("/v1/models/<model>/clients/<client>/history")
    def history(model: str, client: str) -> Response:
        spec = deps.registry.model(model).labelled().spec
        key, environ = client_key(model, client), request.environ
        check_query(environ)
        body = decode(HistoryBody, read_body(environ, deps.limits.max_history_bytes), spec, deps.limits.max_history)
        return _answered(environ, deps.predictor.prime(key, predict_request(body, spec, most=deps.limits.max_history)))

    @routes.get("/v1/models/<model>/clients/<client>/forecast")
    def forecast(model: str, client: str) -> Response:
        key = client_key(model, client)
        check_query(request.environ, "horizon")
        horizon = query_int(request.args, "horizon", HORIZON, 1, 10**9 - 1)
        return json_response(render.answer(deps.predictor.forecast(key, horizon)))

    return routes


def _answered(environ: Environ, result: Answer, *, every: bool = False) -> Response:
    environ[ANSWER] = result  # for the metrics
    response = json_response(render.answer(result, every=every))
    if result.replayed:
        response.headers["Idempotent-Replay"] = "true"
    return response
