"""The fast lane answers as Flask's route does, to the byte and header; a name it does not take goes to Flask."""

import re

import pytest

PLAIN, ESCAPED = "cafe", "caf%C3%A9"  # the second one is Flask's


class Broken(Exception):
    pass


def said(answer):
    """Status, headers and body, without what differs from request to request and name to name."""
    headers = {name: value for name, value in answer.headers if name not in ("X-Request-Id", "Content-Length")}
    body = re.sub(r'"request_id":"[^"]*"', "", answer.get_data(as_text=True)).replace("café", "cafe")
    return answer.status_code, headers, body


@pytest.mark.parametrize(
    "bodies",
    [
        [{"observation": 1.5}],
        [{"observation": 1.5, "step": 1}, {"observation": 1.5, "step": 1}],
        [{"observations": [1, 2, 3], "return": "all", "horizon": 3}],
        [{"observation": 1, "step": 7}],
        [{"observation": "x"}],
        [{"observation": 1, "nonsense": 1}],
        [b"{", b""],
        [b'{"observations": [' + b"1," * 3000 + b"1]}"],
    ],
    ids=["one", "replay", "several", "conflict", "type", "field", "malformed", "large"],
)
def test_lane_and_route_say_the_same(api, bodies):
    answers = [[said(api.post(body, name)) for body in bodies] for name in (PLAIN, ESCAPED)]
    assert answers[0] == answers[1]
    seen = [one[:3] for one in api.observed]
    assert seen[: len(bodies)] == seen[len(bodies) :]


@pytest.mark.parametrize("trouble", ["down", "broken"])
def test_lane_and_route_fail_in_the_same_way(api, trouble, monkeypatch):
    if trouble == "down":
        api.store.down = True
    else:
        monkeypatch.setattr(api.engine, "step", lambda *args: (_ for _ in ()).throw(Broken))
    plain, escaped = (said(api.post({"observation": 1}, name)) for name in (PLAIN, ESCAPED))
    assert plain == escaped
    assert plain[0] == (503 if trouble == "down" else 500)


def test_the_lane_takes_ids_and_gives_them_back(api):
    for name in (PLAIN, ESCAPED):
        answer = api.post({"observation": 1}, name, headers={"X-Request-Id": "mine-1"})
        assert answer.headers["X-Request-Id"] == "mine-1"


@pytest.mark.parametrize("path", ["/v1/models/toy/clients//predict", "/v1/models/toy/clients/a/b/predict"])
def test_what_is_no_name_is_not_found(api, path):
    assert api.send("POST", path, {"observation": 1}).status_code == 404


def test_a_slash_hidden_in_a_name_is_refused_in_the_lane_as_on_the_route(api):
    """Decoded, it is a path that the lane would answer."""
    hidden = {"RAW_URI": "/v1/models/toy%2Fclients/c/predict"}
    client = api.app.test_client()
    answer = client.post("/v1/models/toy/clients/c/predict", json={"observation": 1.0}, environ_overrides=hidden)
    assert answer.status_code == 400
    assert api.record() is None
