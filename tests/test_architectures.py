"""Every architecture is exported and served alike: our own networks, preprocessing and all, over HTTP."""

import keras
import numpy as np
import pytest
import requests

from models.manifest import STEP_TFLITE
from models.repository import Repository
from tests.serving import running_service
from tests.training.test_networks import ARCHITECTURES, job, values
from training.export import export
from training.networks import build_network
from training.pipeline import features_of, targets_of
from training.sources import Series

SETTINGS = {"averages": [5.0, 12.0], "running_scale": 20.0, "lags": 3}


def model_of(architecture):
    """A network whose forecasts really depend on what it remembers."""
    keras.utils.set_random_seed(9)
    network = build_network(job(architecture, network=SETTINGS), [values()])
    head = network.get_layer("head")
    head.set_weights([np.random.default_rng(2).normal(0, 0.2, each.shape) for each in head.get_weights()])
    return network


@pytest.fixture(scope="module")
def networks():
    return {name: model_of(name) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def manifests(networks, tmp_path_factory):
    repository, found = Repository(tmp_path_factory.mktemp("models")), {}
    for name, network in networks.items():
        made_by = job(name, network=SETTINGS)
        known = values()
        with repository.stage(name) as staging:
            manifest = export(
                network, staging, name=name, features=features_of(made_by), quantiles=made_by.quantiles,
                targets=targets_of(made_by, [Series("a", np.arange(len(known), dtype=float), known)]),
                architecture=name, data=[known],
            )  # fmt: skip
            repository.publish(staging, manifest)
        found[name] = repository.verify(name, 1)
    return repository.root, found


@pytest.fixture(scope="module")
def service(manifests, tmp_path_factory):
    root, _ = manifests
    url = f"sqlite:///{tmp_path_factory.mktemp('state')}"
    with running_service(root, url, adaptive_intervals=False) as running, requests.Session() as session:
        yield running.url, session


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_step_over_http_is_that_of_the_offline_pass(networks, manifests, service, architecture):
    (url, session), manifest = service, manifests[1][architecture]
    assert STEP_TFLITE in manifest.files
    walk = np.cumsum(np.random.default_rng(8).normal(size=(60, 2)), axis=0)
    series = (walk + np.array([50, -7])).astype(np.float32)
    offline = np.asarray(networks[architecture](series[None]))[0]
    client = f"{url}/v1/models/{architecture}/clients/one"
    for t, row in enumerate(series):
        told = session.post(f"{client}/predict", json={"observation": row.tolist()}, timeout=30).json()["prediction"]
        for k, target in enumerate(manifest.targets):
            interval = told[target.name]["interval"]
            found = (told[target.name]["value"], interval["lower"], interval["upper"])
            for ours, theirs in zip(found, offline[t, k, [0, 1, 3]], strict=True):
                assert abs(ours - theirs) <= 1e-5 * max(abs(theirs), target.scale), (t, target.name)


def test_what_has_gates_shows_them_and_what_has_none_says_so(service):
    url, session = service
    shown = {}
    for architecture in ARCHITECTURES:
        client = f"{url}/v1/models/{architecture}/clients/two"
        session.post(f"{client}/predict", json={"observations": [[1.0, 2.0], [3.0, 4.0]]}, timeout=30)
        answer = session.get(f"{client}/gates", timeout=30).json()
        shown[architecture] = [sorted(layer["gates"]) for layer in answer["layers"]]
    assert shown == {
        "lstm": [["c", "f", "i", "o"]] * 2,
        "gru": [["h", "r", "z"]] * 2,
        "simple_rnn": [["h"]] * 2,
        "feed_forward": [],
    }
