"""The API's description is the API: every route, every parameter, every member of every answer."""

import base64
import hashlib
import re
import subprocess
import sys

import pytest
from markupsafe import escape

from service.http.described.document import SAID, document, statuses
from service.http.described.operations import OPERATIONS
from service.http.errors import STATUS, TITLES
from service.server.refusal import SLOW_BODY
from tests.fakes import make_spec, serve
from tests.service.http.conftest import ADMIN, HOUR, is_problem

CLIENT = "/v1/models/toy/clients/c"
T0 = 1_699_920_000.0


def prepared(api):
    """Clients that have been through a lot, so that answers have all their members."""
    for value in (4.0, 8.0, 6.0):
        api.predict(value)
    api.predict(4.0, model="hourly", time=T0)
    api.predict(8.0, model="hourly", time=T0 + 3 * HOUR)
    api.evidence["toy", 1] = {"format": 1, "verdict": "worse"}


def exported(api):
    return api.send("GET", f"{CLIENT}/state").get_data()


TOKEN = {"headers": {"Authorization": f"Bearer {ADMIN}"}}
CALLS = {
    "POST {C}/predict": lambda api: api.post({"observations": [1.0, 2.0], "horizon": 2, "return": "all"}),
    "POST {M}/predict": lambda api: api.send(
        "POST", "/v1/models/toy/predict", {"items": [{"client": name, "observation": 1.0} for name in ("c", "n", "")]}
    ),
    "GET {C}/forecast": lambda api: api.send("GET", f"{CLIENT}/forecast?horizon=6"),
    "POST {C}/forecast": lambda api: api.send("POST", f"{CLIENT}/forecast", {"observation": 3.0, "horizon": 2}),
    "PUT {C}/history": lambda api: api.send("PUT", f"{CLIENT}/history", {"observations": [1.0, 2.0]}),
    "GET {C}": lambda api: api.send("GET", CLIENT),
    "PUT {C}": lambda api: api.send("PUT", CLIENT, {"label": "stable"}),
    "GET {C}/gates": lambda api: api.send("GET", "/v1/models/hourly/clients/c/gates"),
    "GET {C}/state": lambda api: api.send("GET", f"{CLIENT}/state"),
    "PUT {C}/state": lambda api: api.send("PUT", "/v1/models/toy/clients/d/state", exported(api)),
    "POST {C}/fork": lambda api: api.send("POST", f"{CLIENT}/fork", {"to": "e"}),
    "DELETE {C}": lambda api: api.send("DELETE", CLIENT),
    "GET {M}/clients": lambda api: api.send("GET", "/v1/models/toy/clients"),
    "DELETE {M}/clients": lambda api: api.send("DELETE", "/v1/models/toy/clients?prefix=c"),
    "GET /v1/models": lambda api: api.send("GET", "/v1/models"),
    "GET {M}": lambda api: api.send("GET", "/v1/models/toy"),
    "GET {M}/versions/{number}": lambda api: api.send("GET", "/v1/models/toy/versions/1"),
    "GET {M}/versions/{number}/evidence": lambda api: api.send("GET", "/v1/models/toy/versions/1/evidence"),
    "GET {M}/labels": lambda api: api.send("GET", "/v1/models/toy/labels", **TOKEN),
    "PUT {M}/labels/{label}": lambda api: api.send("PUT", "/v1/models/toy/labels/stable", {"version": 1}, **TOKEN),
    "DELETE {M}/labels/{label}": lambda api: api.send("DELETE", "/v1/models/toy/labels/candidate", **TOKEN),
    "GET /livez": lambda api: api.send("GET", "/livez"),
    "GET /readyz": lambda api: api.send("GET", "/readyz"),
    "GET /metrics": lambda api: api.send("GET", "/metrics"),
    "GET /openapi.json": lambda api: api.send("GET", "/openapi.json"),
    "GET /docs": lambda api: api.send("GET", "/docs"),
}
CALLS = {
    name.replace("{C}", "{M}/clients/{client}").replace("{M}", "/v1/models/{model}"): call
    for name, call in CALLS.items()
}


def name_of(operation):
    return f"{operation.method} {operation.path}"


def test_every_route_is_described_and_nothing_else(api):
    served = {
        f"{method} {re.sub('<(int:)?', '{', rule.rule).replace('>', '}')}"
        for rule in api.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {
        f"{method.upper()} {path}"
        for path, methods in api.send("GET", "/openapi.json").json["paths"].items()
        for method in methods
    }
    assert described == served == set(CALLS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_answers_have_the_members_that_are_described_and_no_others(api, operation):
    prepared(api)
    answer = CALLS[name_of(operation)](api)
    assert answer.status_code == operation.status, answer.get_data(as_text=True)
    if operation.answer is None:
        assert answer.get_data() == b""
    elif isinstance(operation.answer, str):
        assert answer.mimetype == operation.answer
    else:
        operation.answer.model_validate_json(answer.get_data())


def test_a_shadowed_clients_answer_is_described_too(api):
    operation = next(each for each in OPERATIONS if name_of(each) == "GET /v1/models/{model}/clients/{client}")
    one, two = make_spec(name="toy"), make_spec(name="toy", version=2, fingerprint="11")
    serve(api.registry, one, api.engine)
    stable = api.registry.model("toy").versions[1]
    serve(api.registry, two, api.engine, generation=2, labels={"stable": 1, "candidate": 2})
    api.registry.model("toy").versions[1] = stable
    for value in (4.0, 8.0, 6.0):
        api.predict(value)
    answer = api.send("GET", CLIENT)
    assert answer.json["shadow"]["version"] == 2
    operation.answer.model_validate_json(answer.get_data())


def test_an_expired_clients_answer_and_what_is_not_ready_are_described_too(api):
    predict = next(each for each in OPERATIONS if each.path.endswith("{client}/predict"))
    ready = next(each for each in OPERATIONS if each.path == "/readyz")
    api.predict(4.0)
    api.clock.now += 8 * 24 * HOUR
    answer = api.post({"observation": 8.0})
    assert "last_seen" in answer.json["state"]
    predict.answer.model_validate_json(answer.get_data())
    api.registry.replace({})
    answer = api.send("GET", "/readyz")
    assert answer.status_code in ready.also
    ready.answer.model_validate_json(answer.get_data())


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_the_parameters_described_are_those_that_are_taken(api, operation):
    if operation.path in ("/livez", "/readyz", "/metrics"):  # a probe's own parameters are nobody's business
        return
    path = operation.path.replace("{model}", "toy").replace("{client}", "c")
    path = path.replace("{number}", "1").replace("{label}", "x")
    body = {} if operation.body is not None else None
    refusal = is_problem(api.send(operation.method, f"{path}?nonsense=1", body, **TOKEN), 422, "invalid")
    named = refusal["detail"].split("it takes ")[1]
    assert named == (", ".join(query.name for query in operation.query) or "none")


def test_every_error_is_described_with_its_status():
    described = {code for operation in OPERATIONS for code in operation.refusals}
    assert described == set(TITLES) | {SLOW_BODY.code}
    said = statuses()
    assert (said[SLOW_BODY.code], SAID[SLOW_BODY.code]) == (SLOW_BODY.status, SLOW_BODY.title)
    assert {kind.code: int(status) for kind, status in STATUS.items() if kind.code in described}.items() <= said.items()


def test_a_conflict_is_what_is_described(api):
    api.predict(1.0)
    responses = document()["paths"]["/v1/models/{model}/clients/{client}/predict"]["post"]["responses"]
    for body in ({"observation": 1.0, "step": 9}, {"observation": "x"}, b"{"):
        problem = api.post(body).get_json(force=True)
        assert problem["code"] in responses[str(problem["status"])]["description"]


def test_every_reference_leads_to_a_schema_and_every_operation_has_a_name_of_its_own():
    api = document()
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(api)))
    assert references <= set(api["components"]["schemas"])
    assert "PredictBody" in references
    operations = [said for methods in api["paths"].values() for said in methods.values()]
    assert len({said["operationId"] for said in operations}) == len(operations) == len(OPERATIONS)
    for path, methods in api["paths"].items():
        for said in methods.values():
            in_path = [each["name"] for each in said["parameters"] if each["in"] == "path"]
            assert in_path == re.findall(r"{(\w+)}", path)


def test_the_page_shows_every_operation_and_loads_nothing(api):
    answer = api.send("GET", "/docs")
    page = answer.get_data(as_text=True)
    for operation in OPERATIONS:
        assert f'data-method="{operation.method}" data-path="{operation.path}"' in page
        assert escape(operation.summary) in page
    assert re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page) == ["/openapi.json"]
    assert not re.search(r"@import|url\(|https?://", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]


def test_examples_are_requests_that_are_taken(api):
    for operation in OPERATIONS:
        if operation.example is not None:
            operation.body.model_validate(operation.example)
            assert not operation.body.model_validate(operation.example).model_extra


def test_a_worker_that_is_never_asked_does_not_load_the_description():
    code = "import sys, service.http.app; print([name for name in sys.modules if 'described.' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
