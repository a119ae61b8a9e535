"""Operations: liveness, readiness, request ids, log lines, and errors nobody foresaw."""

import io
import json
import logging

import pytest

from service.core import errors as core
from service.core.registry import Registry
from service.http import errors
from service.http.app import create_app
from service.http.context import Collaborators
from service.logs import JsonLines
from tests.service.http.conftest import Api, is_problem


@pytest.fixture
def log_lines():
    """Log records as the service writes them, decoded when asked for."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger("recurve")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def test_it_is_alive_whatever_happens(api):
    api.store.down = True
    api.registry.replace({})
    assert api.send("GET", "/livez").json == {"live": True}


def test_it_is_ready_with_a_model_and_a_store(api):
    answer = api.send("GET", "/readyz")
    assert answer.status_code == 200
    assert answer.json["ready"] is True
    assert answer.json["models"]["toy"] == {"stable": 1}
    assert answer.json["store"] == "ok"


def test_without_a_model_it_is_not_ready_and_says_what_did_not_load(api):
    api.registry.replace({})
    api.problems.append({"model": "toy", "version": 3, "detail": "step.tflite has other bytes"})
    answer = api.send("GET", "/readyz")
    assert answer.status_code == 503
    assert answer.json["reason"] == "no model is loaded yet"
    assert answer.json["problems"] == api.problems


def test_without_its_store_it_is_not_ready(api):
    api.store.down = True
    answer = api.send("GET", "/readyz")
    assert answer.status_code == 503
    assert answer.json["store"] == "the state store is away"
    api.store.down = False
    assert api.send("GET", "/readyz").status_code == 200


def test_a_model_that_did_not_load_leaves_it_ready_with_the_others(api):
    api.problems.append({"model": "broken", "version": 1, "detail": "damaged"})
    answer = api.send("GET", "/readyz")
    assert answer.status_code == 200
    assert answer.json["problems"] == api.problems


def test_predicting_before_anything_is_served_is_503_with_a_time_to_retry(api):
    api.registry.replace({})
    answer = api.post({"observation": 1.0})
    is_problem(answer, 503, "not_ready")
    assert answer.headers["Retry-After"] == "5"


def test_a_sane_request_id_is_kept_and_any_other_replaced(api):
    assert api.send("GET", "/livez", headers={"X-Request-Id": "abc-1.2:3"}).headers["X-Request-Id"] == "abc-1.2:3"
    for strange in ("", "x" * 129, 'quote"', "caf\xe9", "a b"):
        got = api.send("GET", "/livez", headers={"X-Request-Id": strange}).headers["X-Request-Id"]
        assert got != strange
        assert len(got) == 16


def test_every_request_has_an_id_of_its_own(api):
    assert len({api.send("GET", "/livez").headers["X-Request-Id"] for _ in range(20)}) == 20


def test_an_error_nobody_foresaw_is_a_constant_500_and_logged_under_its_id(api, log_lines, monkeypatch):
    def fail(x, state):
        raise ZeroDivisionError("secret detail")

    api.predict(1.0)
    before = api.record()
    monkeypatch.setattr(api.engine, "step", fail)
    answer = api.post({"observation": 2.0}, headers={"X-Request-Id": "find-me"})
    body = is_problem(answer, 500, "internal")
    assert "secret" not in answer.get_data(as_text=True)
    assert body["request_id"] == "find-me"
    failed = [line for line in log_lines() if line["message"] == "a request failed"]
    assert "secret detail" in failed[0]["exc_info"]
    assert failed[0]["request_id"] == "find-me"
    assert api.record() == before


def test_requests_are_logged_only_when_asked_for_but_failures_always(log_lines):
    api = Api()
    api.predict(1.0)
    assert log_lines() == []
    api.store.down = True
    api.post({"observation": 1.0})
    (refused, access) = log_lines()
    assert refused["code"] == "store_unavailable"
    assert (access["logger"], access["status"], access["method"]) == ("recurve.access", 503, "POST")
    assert refused["request_id"] == access["request_id"]


def test_the_access_log_has_one_line_for_each_request(api, log_lines):
    app = create_app(Collaborators(None, None, None, None, None, api.registry, api.store), access_log=True)
    app.test_client().get("/v1/models", headers={"X-Request-Id": "r-1"})
    (line,) = log_lines()
    assert line["request_id"] == "r-1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/models", 200)
    assert line["duration_ms"] > 0
    assert {"time", "level", "logger", "pid"} <= set(line)


def test_a_slow_request_is_logged_whether_asked_for_or_not(api, log_lines):
    app = create_app(Collaborators(None, None, None, None, None, api.registry, api.store), slow_request_s=0.0)
    app.test_client().get("/v1/models")
    assert [line["message"] for line in log_lines()] == ["slow request"]


def test_not_being_ready_is_not_logged_as_a_failure(log_lines):
    api = Api()
    api.registry.replace({})
    api.send("GET", "/readyz")
    assert log_lines() == []


def test_the_observer_is_told_route_status_and_answer_but_no_client(api):
    api.predict(1.0, client="someone")
    api.post(b"{", client="someone")
    api.send("GET", "/nowhere/someone")
    good, bad, nowhere = api.observed
    assert good[:3] == ("/v1/models/<model>/clients/<client>/predict", "POST", 200)
    assert good[4].step == 1
    assert (bad[2], bad[4]) == (400, None)
    assert nowhere[0] == "unknown"
    assert "someone" not in str(good[:4] + bad + nowhere)


def test_metrics_are_handed_out_as_they_are(api):
    answer = api.send("GET", "/metrics")
    assert answer.get_data() == b"recurve_up 1\n"
    assert answer.content_type == "text/plain; version=1.0.0"


def test_every_error_of_the_core_has_its_status_in_the_table():
    def family(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from family(child)

    assert {kind for kind in family(core.RecurveError) if kind.__module__ == "service.core.errors"} <= set(
        errors.STATUS
    )


def test_apps_are_independent():
    one, other = Api(), Api()
    one.predict(1.0)
    assert other.view() is None
    assert Registry().models == {}


def test_evidence_of_a_version_is_told_as_it_is_kept_and_where_none_is_that_is_said(api):
    path = "/v1/models/toy/versions/2/evidence"
    assert "version 2" in is_problem(api.send("GET", path), 404, "evidence_not_found")["detail"]
    api.evidence["toy", 2] = {"format": 1, "verdict": "worse", "wealth": {"better": 0.25, "worse": 21.5}}
    answer = api.send("GET", path)
    assert (answer.status_code, answer.json) == (200, api.evidence["toy", 2])
    is_problem(api.send("GET", "/v1/models/nobody/versions/2/evidence"), 404, "model_not_found")
    is_problem(api.send("GET", path + "?since=1"), 422, "invalid")
