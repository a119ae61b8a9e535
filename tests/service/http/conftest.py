"""The HTTP face over the real core: leaky integrators, the memory store, a clock that is set."""

import json
from dataclasses import replace

import numpy as np
import pytest

from service.core.capacity import Capacity
from service.core.errors import StoreUnavailable
from service.core.locks import ClientLocks
from service.core.many.together import Together
from service.core.mover import Mover
from service.core.pinning import Pinner
from service.core.ports import LabelsNow
from service.core.predictor import Limits, Predictor
from service.core.registry import Registry
from service.core.types import ClientKey, FeatureSpec
from service.http.app import create_app
from service.http.context import TENANT, Collaborators, HttpLimits
from service.stores import open_store
from tests.fakes import LeakyIntegrator, SettableClock, make_spec, serve

HOUR = 3600.0
ADMIN = "a-secret-of-the-tests"


class FailingStore:
    """A store that is away while `down` says so."""

    def __init__(self, inner):
        self.inner, self.down = inner, False

    def _check(self):
        if self.down:
            raise StoreUnavailable("the state store is away")

    def load(self, key):
        self._check()
        return self.inner.load(key)

    def save(self, key, old, new, blob):
        self._check()
        return self.inner.save(key, old, new, blob)

    def delete(self, key, old=None):
        self._check()
        return self.inner.delete(key)

    def list(self, tenant, model, after, limit):
        self._check()
        return self.inner.list(tenant, model, after, limit)

    def count(self, tenant, model):
        self._check()
        return self.inner.count(tenant, model)

    def load_many(self, keys):
        self._check()
        return self.inner.load_many(keys)

    def save_many(self, saves):
        self._check()
        return self.inner.save_many(saves)

    def close(self):
        self.inner.close()


class KeptLabels:
    """Labels in memory: what was asked of them, and what they are to raise."""

    def __init__(self):
        self.asked, self.failing = [], None

    def labels(self, model):
        return self._now("labels", model)

    def move(self, model, label, version, generation):
        return self._now("move", model, label, version, generation)

    def drop(self, model, label, generation):
        return self._now("drop", model, label, generation)

    def _now(self, *asked):
        if self.failing is not None:
            raise self.failing
        self.asked.append(asked)
        return LabelsNow(7, {"stable": 3})


class Api:
    """A client of the service. Bodies are given as Python values, or as bytes that go out as they are."""

    def __init__(self, admin_token=ADMIN, **limits):
        self.labels = KeptLabels()
        self.clock, self.registry = SettableClock(), Registry()
        self.store = FailingStore(open_store("memory://"))
        self.engine = LeakyIntegrator()
        three = make_spec(("temperature", "dew_point", "pressure"), name="weather", interval_s=HOUR)
        limited = FeatureSpec("pressure", "hPa", 100.0, 2000.0)
        for spec in (
            make_spec(name="toy"),
            make_spec(name="hourly", interval_s=HOUR),
            replace(three, features=(*three.features[:2], limited)),
            make_spec(("a", "b"), name="half", predicts=("a",), interval_s=HOUR),
        ):
            serve(self.registry, spec, HalfEngine() if spec.name == "half" else self.engine)
        self.observed = []
        self.problems = []
        self.evidence = {}
        bounds = Limits(**{"max_clients": 40, **limits})
        shared = {"locks": ClientLocks(), "capacity": Capacity(self.store, bounds.max_clients, self.clock)}
        http = HttpLimits(4000, 20_000, max_observations=5, max_history=50, max_items=30)
        predictor = Predictor(self.registry, self.store, self.clock, bounds, **shared)
        self.together = Together(predictor, self.registry, self.store, self.clock, bounds)
        self.counted = []
        self.app = create_app(
            Collaborators(
                predictor,
                self.together,
                Mover(self.registry, self.store, clock=self.clock, limits=bounds, **shared),
                Pinner(self.registry, self.store, shared["locks"], self.clock, bounds),
                self.labels,
                self.registry,
                self.store,
                problems=lambda: self.problems,
                evidence=lambda model, version: self.evidence.get((model, version)),
                exposition=lambda: (b"recurve_up 1\n", "text/plain; version=1.0.0"),
                count_items=lambda *seen: self.counted.append(seen),
                limits=http,
                admin_token=admin_token,
            ),
            lambda *seen: self.observed.append(seen),
        )
        self.wsgi = self.app.test_client()

    def send(self, method, path, body=None, **options):
        if body is not None:
            options["data"] = body if isinstance(body, bytes) else json.dumps(body)
        return self.wsgi.open(path, method=method, **options)

    def post(self, body, client="c", model="toy", **options):
        return self.send("POST", f"/v1/models/{model}/clients/{client}/predict", body, **options)

    def predict(self, observation, client="c", model="toy", **fields):
        """Absorb one observation, which must succeed; the decoded answer."""
        answer = self.post({"observation": observation, **fields}, client, model)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.json

    def view(self, client="c", model="toy"):
        """What GET tells of a client, None if there is nothing."""
        answer = self.send("GET", f"/v1/models/{model}/clients/{client}")
        return answer.json if answer.status_code == 200 else None

    def record(self, client="c", model="toy"):
        return self.store.inner.load(ClientKey(TENANT, model, client))


class HalfEngine(LeakyIntegrator):
    """Predicts the first of two features alone."""

    def step(self, x, state):
        y, following = super().step(x, state)
        return np.ascontiguousarray(y[:, :1]), following


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def refused(api):
    """Sends a request that must be refused: checks the problem's form, and that the client stands where it stood."""

    def check(answer_of, status, code=None, *, client="c", model="toy", **extra):
        before = api.record(client, model), api.view(client, model)
        answer = answer_of()
        assert (api.record(client, model), api.view(client, model)) == before
        return is_problem(answer, status, code, **extra)

    return check


def is_problem(answer, status, code=None, **extra):
    """Asserts that `answer` is a problem document of `status` with `code` and `extra` members; its decoded body."""
    body = answer.get_json(force=True)
    assert answer.status_code == status, body
    assert answer.content_type == "application/problem+json"
    assert body["status"] == status
    assert body["error"] == body["detail"] != ""
    assert body["title"]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body.get("code") == code
    assert body["type"] == ("about:blank" if code is None else f"urn:recurve:problem:{code}")
    for name, value in extra.items():
        assert body[name] == value, body
    return body
