"""Paths, names and methods: what is not there is said as a problem, and no name reaches another's state."""

from urllib.parse import quote

import pytest

from tests.service.http.conftest import is_problem


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/health", "/v1/models/toy/clients/c/nothing", "/v1/models/", "/favicon.ico"]
)
def test_an_unknown_path_is_404(api, path):
    is_problem(api.send("GET", path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/models/toy/clients/c/predict", {"POST", "OPTIONS"}),
        ("POST", "/v1/models/toy/clients/c", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("DELETE", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/livez", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(api, method, path, allowed):
    answer = api.send(method, path)
    is_problem(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/none/clients/c/predict"),
        ("PUT", "/v1/models/none/clients/c/history"),
        ("GET", "/v1/models/none/clients/c/forecast"),
        ("GET", "/v1/models/none/clients/c"),
        ("DELETE", "/v1/models/none/clients/c"),
        ("GET", "/v1/models/none/clients"),
        ("GET", "/v1/models/none/clients/c/gates"),
        ("GET", "/v1/models/none"),
        ("GET", "/v1/models/none/versions/1"),
        ("GET", "/v1/models/toy/versions/2"),
        ("GET", "/v1/models/%00%07/clients/c"),
    ],
)
def test_an_unknown_model_or_version_is_404(api, method, path):
    is_problem(api.send(method, path, b'{"observation": 1}'), 404, "model_not_found")


@pytest.mark.parametrize("call", ["GET ", "DELETE ", "GET /forecast", "GET /gates"])
def test_an_unknown_client_is_404(api, call):
    method, _, rest = call.partition(" ")
    is_problem(api.send(method, f"/v1/models/toy/clients/nobody{rest}"), 404, "client_not_found")


@pytest.mark.parametrize(
    "name", ["x" * 257, "tab%09bed", "nul%00", "line%0Abreak", "%C2%A0%E2%80%8B", "%FF%FE", "%E2%80%AEright-to-left"]
)
@pytest.mark.parametrize("call", ["POST /predict", "PUT /history", "GET ", "DELETE ", "GET /forecast", "GET /gates"])
def test_an_absurd_client_name_is_refused(api, name, call):
    method, _, rest = call.partition(" ")
    answer = api.send(method, f"/v1/models/toy/clients/{name}{rest}", b'{"observation": 1}')
    is_problem(answer, 422, "invalid", field="client")
    assert api.send("GET", "/v1/models/toy/clients").json["clients"] == []


def test_an_empty_client_name_is_not_found_and_not_redirected(api):
    is_problem(api.post({"observation": 1.0}, client=""), 404)


def test_a_slash_in_a_name_never_reaches_another_endpoint(api):
    api.predict(1.0, client="x")
    before = api.record("x")
    for path in ("x%2Fhistory", "x%2fhistory"):
        is_problem(api.send("PUT", f"/v1/models/toy/clients/{path}", {"observations": [9.0]}), 400)
    assert api.record("x") == before


@pytest.mark.parametrize("name", ["a", "roof-7", "x" * 256, "Zürich", "屋根", "a b", "..", "%25", "a?b", "q&a=#1"])
def test_any_printable_name_is_kept_as_it_is(api, name):
    path = quote(name, safe="")
    assert api.predict(1.0, client=path)["client"] == name
    assert api.view(path)["client"] == name
    assert api.send("GET", "/v1/models/toy/clients").json["clients"] == [name]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("clients/c/forecast?horizon=0", "horizon"),
        ("clients/c/forecast?horizon=1.5", "horizon"),
        ("clients/c/forecast?horizon=-1", "horizon"),
        ("clients/c/forecast?horizon=", "horizon"),
        ("clients/c/forecast?horizon=99999", "horizon"),
        ("clients/c/forecast?horizont=2", "horizont"),
        ("clients/c/gates?last=0", "last"),
        ("clients/c/gates?last=513", "last"),
        ("clients/c/gates?last=x", "last"),
        ("clients?limit=0", "limit"),
        ("clients?limit=1001", "limit"),
        ("clients?after=nonsense", "after"),
        ("clients?before=1", "before"),
    ],
)
def test_a_wrong_query_parameter_is_named(api, refused, path, field):
    api.predict(1.0)
    refused(lambda: api.send("GET", f"/v1/models/toy/{path}"), 422, "invalid", field=field)
