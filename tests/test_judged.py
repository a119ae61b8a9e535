"""Candidates judged by live traffic, over the real service: two workers, real bundles, twenty clients who never stop.

The clients' series are made by the weights of version 2 and some noise, so that version 2 forecasts them better.
"""

import shutil
import threading

import numpy as np
import pytest
import requests

from models.manifest import read_manifest
from models.repository import Repository
from service.engines import open_engine
from service.specs import spec_of
from tests.conftest import TRIPLE
from tests.serving import running_service, wait_until

BOUND_S = 240.0
SEED, CLIENTS, THREADS, NOISE = 23, 20, 4, 0.02
TOKEN = "the-token-of-these-tests"
MODEL = f"/v1/models/{TRIPLE}"


class Sender:
    """A client whose observations follow what version 2 would expect. Each answer is checked as it comes."""

    def __init__(self, name, engine, spec):
        self.name, self.engine = name, engine
        self.rng = np.random.default_rng([SEED, name])
        self.x = self.rng.normal([10, 5, 1010], 1.0).astype(np.float32)[None]
        self.state = spec.initial_state[None]
        self.step, self.answers = 0, []

    def send(self, session, url):
        self.step += 1
        body = {"observation": self.x[0].tolist(), "step": self.step}
        answer = session.post(f"{url}{MODEL}/clients/c-{self.name}/predict", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["step"] == self.step
        self.answers.append((found["version"], found["state"]["status"], found["state"]["reason"]))
        y, self.state = self.engine.step(self.x, self.state)
        self.x = (y[:, :, 0] + self.rng.normal(0, NOISE, y.shape[1])).astype(np.float32)


@pytest.fixture
def root(two_versions, tmp_path):
    shutil.copytree(two_versions, tmp_path / "published")
    return tmp_path / "published"


def test_under_load_a_better_candidate_is_served_and_a_worse_one_dropped(root, tmp_path):
    print("seed", SEED)
    repository = Repository(root)
    bundle = repository.bundle(TRIPLE, 2)
    spec = spec_of(read_manifest(bundle), 2)
    engine = open_engine(bundle, spec, "litert")
    senders = [Sender(n, engine, spec) for n in range(CLIENTS)]
    stopped, failures = threading.Event(), []

    def labels():
        return repository.labels(TRIPLE).labels

    def live(url, mine):
        try:
            while not stopped.is_set():
                with requests.Session() as session:  # a connection of its own each round: any worker may answer
                    for sender in mine:
                        sender.send(session, url)
        except (AssertionError, requests.RequestException) as error:
            failures.append(error)

    settings = {"minute_s": 0.25, "poll_s": 0.1, "admin_token": TOKEN}
    with running_service(root, f"sqlite:///{tmp_path}/state", workers=2, **settings) as running:

        def label(name, version):
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = f"{running.url}{MODEL}/labels/{name}"
            assert requests.put(url, json={"version": version}, headers=headers, timeout=30).status_code == 200

        def evidence(version):
            return requests.get(f"{running.url}{MODEL}/versions/{version}/evidence", timeout=30)

        threads = [threading.Thread(target=live, args=(running.url, senders[n::THREADS])) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            assert evidence(2).status_code == 404
            label("candidate", 2)
            wait_until(lambda: failures or labels().get("stable") == 2, BOUND_S, "a promotion", every_s=0.2)
            assert not failures, failures
            seen = [sender.step for sender in senders]
            wait_until(
                lambda: failures or all(s.step > n + 5 for s, n in zip(senders, seen, strict=True)), BOUND_S, "steps"
            )
            assert labels() == {"stable": 2, "previous": 1}
            label("candidate", 1)
            wait_until(lambda: failures or "candidate" not in labels(), BOUND_S, "a candidate dropped", every_s=0.2)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        assert not failures, failures
        better, worse = evidence(2).json(), evidence(1).json()
        for outcome in ("promoted", "worse"):
            line = f'recurve_promotions_total{{model="{TRIPLE}",outcome="{outcome}"}} 1.0'
            wait_until(lambda line=line: line in requests.get(f"{running.url}/metrics", timeout=30).text, 120, line)
        log = running.stderr()

    assert labels() == {"stable": 2, "previous": 1}
    for found, verdict in ((better, "better"), (worse, "worse")):
        told = {name: found[name] for name in ("steps", "minutes", "mean", "interval", "wealth", "independent_share")}
        print(verdict, told)
        assert found["verdict"] == verdict
        assert found["wealth"][verdict] >= 1 / found["level"]
    assert better["mean"] > 0 > worse["mean"]
    for sender in senders:
        versions = [version for version, _, _ in sender.answers]
        assert versions == sorted(versions), "nobody goes back"
        assert [reason for _, _, reason in sender.answers if reason is not None] == ["promoted"]
        assert {status for _, status, _ in sender.answers[1:]} == {"carried"}
        assert len(sender.answers) == sender.step
    assert log.count("a candidate was proven better and is served") == 1
