"""The threads beside the requests outlive what nobody foresaw: one that ends in silence stops a worker's memory from
being given back, or its candidates from being judged."""

import time
from itertools import count

import pytest

from models.repository import Repository
from service.core.lease import Lease
from service.core.registry import Registry
from service.core.sweep import Sweep
from service.drift.watch import DriftWatch
from service.judge import Judge
from service.labels import RepositoryLabels
from service.loader import Loader
from service.metrics import Metrics
from service.minutes import MinuteSums
from service.stores import open_store
from service.sweeper import Sweeper
from service.tally import Tally
from tests.serving import wait_until


def minute_sums(tmp_path, store):
    return MinuteSums(store, time.time, 0.1), "flush"


def tally(tmp_path, store):
    return Tally(), "settle"


def sweeper(tmp_path, store):
    sweep = Sweep(Registry(), store, store, time.time)
    return Sweeper(sweep, Lease(store, "sweep", time.time), Metrics().sessions, 0.1), "look"


def drift_watch(tmp_path, store):
    lease, metrics = Lease(store, "drift", time.time), Metrics()
    sums = MinuteSums(store, time.time, 0.1)
    return DriftWatch(Registry(), store, sums, lease, time.time, metrics.drift, tmp_path, 0.1), "look"


def judge(tmp_path, store):
    registry, repository = Registry(), Repository(tmp_path)
    labels = RepositoryLabels(repository, Loader(repository, registry, lambda bundle, spec: None))
    sums, lease = MinuteSums(store, time.time, 0.1), Lease(store, "judge", time.time)
    return Judge(registry, repository, labels, sums, lease, time.time, Metrics().trials), "look"


@pytest.mark.parametrize("made", [minute_sums, tally, sweeper, drift_watch, judge])
def test_a_thread_goes_on_after_what_nobody_foresaw_and_logs_it(made, tmp_path, monkeypatch, caplog):
    part, turn = made(tmp_path, open_store("memory://"))
    turns, real = count(1), getattr(part, turn)
    done = []

    def odd_at_first():
        if next(turns) == 1:
            raise RuntimeError("nobody foresaw this")
        done.append(real())

    monkeypatch.setattr(part, turn, odd_at_first)
    part.start()
    try:
        wait_until(lambda: len(done) >= 2, 120, "turns after the odd one")
    finally:
        part.stop()
    logged = [record for record in caplog.records if record.exc_info is not None]
    assert [str(record.exc_info[1]) for record in logged] == ["nobody foresaw this"]
