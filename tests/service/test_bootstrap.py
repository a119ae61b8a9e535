"""The composition root: what it builds works, gives back what it took, and imports no more than it needs."""

import json
import os
import subprocess
import sys

import pytest

from service.bootstrap import build
from service.settings import read_settings
from service.stores.errors import StoreNotOpened
from tests.conftest import SINGLE
from tests.serving import ROOT

# What a worker does, in a process of its own: build, predict, tell what was imported.
WORKER = """
import json, sys
from service.wsgi import application
app = application()
answer = app.test_client().post("/v1/models/single/clients/c/predict", data=b'{"observation": 20.0}')
assert answer.status_code == 200, answer.get_data()
app.extensions["recurve"].close()
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("engine", ["auto", "litert"])
def test_a_worker_imports_no_framework_where_a_bundle_has_its_tflite(tiny_repository, tmp_path, engine):
    environment = {
        **os.environ,
        "RECURVE_MODELS_DIR": str(tiny_repository),
        "RECURVE_STATE_URL": f"sqlite:///{tmp_path / 'state'}",
        "RECURVE_ENGINE": engine,
        "RECURVE_LOG_OBSERVATIONS": "*",
        "RECURVE_OBSERVATIONS_DIR": str(tmp_path / "observations"),
    }
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert {"flask", "ai_edge_litert", "service", "models"} <= loaded
    assert loaded & {"tensorflow", "keras", "pandas", "matplotlib", "pyarrow", "training", "requests", "scipy"} == set()
    assert len(list((tmp_path / "observations" / "journal").glob("*.closed"))) == 1, "and it has logged what it saw"


def test_a_service_is_built_and_closed(tiny_repository):
    service = build(read_settings({}, models_dir=tiny_repository, state_url="memory://", workers=1))
    client = service.app.test_client()
    assert client.get("/readyz").status_code == 200
    assert client.post(f"/v1/models/{SINGLE}/clients/c/predict", data=b'{"observation": 20.0}').status_code == 200
    text = client.get("/metrics").get_data(as_text=True)
    assert f'recurve_engine_step_seconds_count{{model="{SINGLE}",version="1"}} 1.0' in text
    manifest = client.get(f"/v1/models/{SINGLE}/versions/1").json["manifest"]
    assert manifest["name"] == SINGLE
    service.close()
    assert client.get("/readyz").status_code == 503


def test_limits_reach_the_core_and_the_routes(tiny_repository):
    settings = read_settings(
        {},
        models_dir=tiny_repository,
        state_url="memory://",
        workers=1,
        max_observations=2,
        max_horizon=3,
        max_clients=1,
    )
    service = build(settings)
    client = service.app.test_client()
    path = f"/v1/models/{SINGLE}/clients"
    assert client.post(f"{path}/a/predict", data=b'{"observations": [1, 2, 3]}').status_code == 422
    assert client.post(f"{path}/a/predict", data=b'{"observation": 1, "horizon": 4}').status_code == 422
    assert client.post(f"{path}/a/predict", data=b'{"observation": 1}').status_code == 200
    assert client.post(f"{path}/b/predict", data=b'{"observation": 1}').status_code == 429
    service.close()


def test_a_store_that_cannot_be_opened_is_said_and_nothing_is_built(tiny_repository):
    with pytest.raises(StoreNotOpened):
        build(read_settings({}, models_dir=tiny_repository, state_url="postgres://x"))
