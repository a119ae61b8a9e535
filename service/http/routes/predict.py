"""Predicting: absorb observations, look ahead, prime from history."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.http import render
from service.http.body import read_body
from service.http.context import ANSWER, Collaborators, Environ, check_query, client_key
from service.http.history import history_request
from service.http.lane import ROUTE, Predict
from service.http.output import JSON, encode, json_response
from service.http.schemas import PredictBody, decode, idempotency_key, predict_request, query_int
from service.http.supposing import HORIZON, ForecastBody, supposition


def endpoint(deps: Collaborators) -> Predict:
    """`POST …/predict` as a function of the request's environ and the names in its path, whoever routes it: the
    answer's body, and whether it is a replay."""

    def predict(environ: Environ, model: str, client: str) -> tuple[bytes, bool]:
        spec = deps.registry.model(model).labelled().spec
        key = client_key(model, client)
        check_query(environ)
        body = decode(PredictBody, read_body(environ, deps.limits.max_body_bytes), spec, deps.limits.max_observations)
        repeats = idempotency_key(environ.get("HTTP_IDEMPOTENCY_KEY"))
        asked = predict_request(body, spec, most=deps.limits.max_observations, idempotency_key=repeats)
        result = environ[ANSWER] = deps.predictor.predict(key, asked)  # kept for the metrics
        return encode(render.answer(result, every=body.returns == "all")), result.replayed

    return predict


def blueprint(deps: Collaborators) -> Blueprint:
    """`…/predict`, `…/forecast` and `…/history` of a client."""
    routes = Blueprint("predict", __name__)
    answer_predict = endpoint(deps)

    @routes.post(ROUTE)
    def predict(model: str, client: str) -> Response:
        body, replayed = answer_predict(request.environ, model, client)
        return Response(body, content_type=JSON, headers={"Idempotent-Replay": "true"} if replayed else None)

    @routes.put("/v1/models/<model>/clients/<client>/history")
    def history(model: str, client: str) -> Response:
        spec = deps.registry.model(model).labelled().spec
        key, environ = client_key(model, client), request.environ
        check_query(environ)
        data = read_body(environ, deps.limits.max_history_bytes)
        asked = history_request(data, spec, deps.limits.max_history)
        result = environ[ANSWER] = deps.predictor.prime(key, asked)
        return json_response(render.answer(result))

    @routes.get("/v1/models/<model>/clients/<client>/forecast")
    def forecast(model: str, client: str) -> Response:
        key = client_key(model, client)
        check_query(request.environ, "horizon")
        horizon = query_int(request.args, "horizon", HORIZON, 1, 10**9 - 1)
        return json_response(render.answer(deps.predictor.forecast(key, horizon)))

    @routes.post("/v1/models/<model>/clients/<client>/forecast")
    def suppose(model: str, client: str) -> Response:
        spec = deps.registry.model(model).labelled().spec
        key, environ = client_key(model, client), request.environ
        check_query(environ)
        most = deps.limits.max_observations
        body = decode(ForecastBody, read_body(environ, deps.limits.max_body_bytes), spec, most)
        supposed = supposition(body, spec, most=most)
        return json_response(render.answer(deps.predictor.forecast(key, body.horizon, supposed)))

    return routes
