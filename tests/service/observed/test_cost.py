"""What a predict pays for its log: one twentieth of itself at most."""

import io
import json
from statistics import median
from time import thread_time_ns

import numpy as np
import pytest

from service.bootstrap import build
from service.observed.log import ObservationLog
from service.settings import Settings
from tests.conftest import TRIPLE

PREDICTS, CLIENTS = 3_000, 16
MOST = 0.05


@pytest.fixture
def spent(monkeypatch):
    """Processor time of every packing and of every writing, which go on as ever: nanoseconds by method."""
    found = {"witness": [], "write": []}
    for name, times in found.items():
        real = getattr(ObservationLog, name)

        def timed(*arguments, real=real, times=times):
            began = thread_time_ns()
            real(*arguments)
            times.append(thread_time_ns() - began)

        monkeypatch.setattr(ObservationLog, name, timed)
    return found


def test_a_predict_is_slowed_by_its_log_by_no_more_than_five_percent(tiny_repository, tmp_path, spent):
    """By processor time: packing the rows within the request, writing and syncing them in the log's thread, beside the
    whole request but for its socket. The best of three rounds counts: what else a machine is at only adds to it."""
    shares = []
    while len(shares) < 3 and min(shares, default=1.0) > MOST:
        shares.append(share_of_the_log(tiny_repository, tmp_path / str(len(shares)), spent))
    assert min(shares) <= MOST, shares


def share_of_the_log(repository, folder, spent):
    """What the log of a service takes of its predicts' processor time."""
    where = {"models_dir": repository, "state_url": f"sqlite:///{folder}/state"}
    logs = {"log_observations": TRIPLE, "observations_dir": folder / "observations"}
    for times in spent.values():
        times.clear()
    service, random, requests = build(Settings(workers=1, **where, **logs)), np.random.default_rng(4), []
    try:
        for n in range(PREDICTS):
            body = json.dumps({"observation": random.normal([10, 5, 1010], 3).round(2).tolist()}).encode()
            environ = {
                "REQUEST_METHOD": "POST",
                "PATH_INFO": f"/v1/models/{TRIPLE}/clients/c{n % CLIENTS}/predict",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }
            statuses = []
            began = thread_time_ns()
            answer = service.app(environ, lambda status, headers, told=statuses: told.append(status))
            requests.append(thread_time_ns() - began)
            assert (statuses, len(answer)) == (["200 OK"], 1)
    finally:
        service.close()
    assert len(spent["witness"]) == PREDICTS
    packing, writing = median(spent["witness"]), sum(spent["write"]) / PREDICTS
    predict = median(requests) - packing
    share = (packing + writing) / predict
    print(f"predict {predict / 1e3:.0f} us, packing {packing / 1e3:.1f}, writing {writing / 1e3:.1f}: {share:.1%}")
    return share
