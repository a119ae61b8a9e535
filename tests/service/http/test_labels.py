"""Labels over HTTP: for an administrator alone, and every refusal says what to do."""

import pytest

from service.core import errors as core
from tests.service.http.conftest import ADMIN, Api, is_problem

LABELS = "/v1/models/toy/labels"
EVERY = [("GET", LABELS, None), ("PUT", f"{LABELS}/stable", {"version": 2}), ("DELETE", f"{LABELS}/candidate", None)]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def admin(api, method, path, body=None):
    return api.send(method, path, body, headers=bearer(ADMIN))


@pytest.mark.parametrize(("method", "path", "body"), EVERY)
@pytest.mark.parametrize(
    "shown",
    [
        {},
        bearer("wrong"),
        bearer(ADMIN + "x"),
        bearer(""),
        {"Authorization": f"Basic {ADMIN}"},
        {"Authorization": ADMIN},
    ],
)
def test_without_the_token_nothing_is_told_or_moved(api, method, path, body, shown):
    answer = api.send(method, path, body, headers=shown)
    problem = is_problem(answer, 401, "not_admin")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert ADMIN not in str(problem)
    assert api.labels.asked == []


@pytest.mark.parametrize(("method", "path", "body"), EVERY)
def test_where_no_token_is_set_nobody_is_an_administrator(method, path, body):
    for shown in ({}, bearer(""), bearer("None")):
        api = Api(admin_token=None)
        problem = is_problem(api.send(method, path, body, headers=shown), 403, "no_admin")
        assert "RECURVE_ADMIN_TOKEN" in problem["detail"]
        assert api.labels.asked == []


def test_the_labels_are_answered_with_their_generation(api):
    for method, path, body in EVERY:
        answer = admin(api, method, path, body)
        assert (answer.status_code, answer.json) == (200, {"model": "toy", "generation": 7, "labels": {"stable": 3}})
    assert api.labels.asked == [
        ("labels", "toy"),
        ("move", "toy", "stable", 2, None),
        ("drop", "toy", "candidate", None),
    ]


def test_the_scheme_is_read_whatever_its_case(api):
    assert api.send("GET", LABELS, headers={"Authorization": f"bearer  {ADMIN}"}).status_code == 200


def test_a_generation_is_handed_on(api):
    admin(api, "PUT", f"{LABELS}/stable", {"version": 2, "generation": 0})
    admin(api, "DELETE", f"{LABELS}/candidate?generation=6")
    assert api.labels.asked == [("move", "toy", "stable", 2, 0), ("drop", "toy", "candidate", 6)]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "version"),
        ({"version": 0}, 422, "version"),
        ({"version": "2"}, 422, "version"),
        ({"version": 2, "generation": -1}, 422, "generation"),
        ({"version": 2, "label": "x"}, 422, "label"),
        (b"2", 400, None),
    ],
)
def test_a_move_that_is_none_is_named(api, body, status, field):
    problem = is_problem(admin(api, "PUT", f"{LABELS}/stable", body), status, "invalid" if field else "malformed_body")
    assert problem.get("field") == field
    assert api.labels.asked == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (core.ModelNotFound("toy"), 404, "model_not_found"),
        (core.LabelNotFound("no such label"), 404, "label_not_found"),
        (core.LabelKept("it stays"), 409, "label_kept"),
        (core.LabelsMoved("look again", 9), 409, "labels_moved"),
        (core.VersionUnfit("step.tflite has other bytes"), 409, "version_unfit"),
        (core.RepositoryReadOnly("Read-only file system"), 409, "read_only"),
        (core.RepositoryUnavailable("held by another"), 503, "repository_unavailable"),
    ],
)
def test_each_refusal_has_its_status_and_says_why(api, error, status, code):
    api.labels.failing = error
    for method, path, body in EVERY:
        answer = admin(api, method, path, body)
        problem = is_problem(answer, status, code)
        assert problem["detail"] == error.detail
        assert ("Retry-After" in answer.headers) is (status == 503)
    if code == "labels_moved":
        assert problem["generation"] == 9
