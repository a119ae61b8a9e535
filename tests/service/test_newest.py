"""Workers tell each other what they saved: a client that hops between them is stepped once each time."""

from itertools import count

import requests

from tests.conftest import SINGLE
from tests.serving import running_service, wait_until

HOPS = 50


def test_no_step_of_a_client_that_hops_between_workers_is_taken_in_vain(tiny_repository, tmp_path):
    """Each new connection is some worker's. A worker that knew of its own saves alone would step once in vain for each
    hop, or load for a long time after."""
    steps = count(1)
    with running_service(tiny_repository, f"sqlite:///{tmp_path}/state", workers=2) as service:

        def has_hopped():
            for step in (next(steps) for _ in range(100)):
                url = f"{service.url}/v1/models/{SINGLE}/clients/hopper/predict"
                assert requests.post(url, json={"observation": step % 5}, timeout=30).json()["step"] == step
            return counted(service, 'recurve_store_seconds_count{verb="load"}') > HOPS

        wait_until(has_hopped, 120.0, "hops between both workers")
        assert counted(service, "recurve_store_conflicts_total") == 0


def counted(service, sample):
    """What the workers have counted together; those that were not asked settle it every half second."""
    text = requests.get(f"{service.url}/metrics", timeout=30).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample))
