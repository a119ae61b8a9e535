"""Drift of live errors: seen once where they grow, never where they do not; the detector is no part of a worker."""

import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests

from models.drift import read_drift
from service.core.errors import StoreUnavailable
from service.core.lease import Lease
from service.core.minutes import Minute
from service.core.registry import Registry
from service.drift import watch
from service.drift.apart import DetectorApart, DetectorFailed
from service.drift.history import MOST, ErrorMinute, History, decode, encode, place
from service.drift.watch import DriftWatch
from service.metrics import Metrics
from service.stores import open_store
from tests.conftest import SINGLE, TRIPLE
from tests.fakes import LeakyIntegrator, SettableClock, make_spec, serve
from tests.serving import ROOT, running_service, wait_until

SEED = 20261123
EVERY_S = 300.0


def minutes_of(rng, count, ratio, scored=10):
    """Sums of `count` minutes whose errors are `ratio` times the last value's, heavy-tailed, volatility coming and
    going for both."""
    shock = np.exp(rng.normal(0, 0.3, (count, 1)))
    error, other = (shock * rng.standard_t(5, (count, scored)) for _ in range(2))
    squared = ((ratio * error) ** 2).sum(1)
    naive = ((0.6 * error + 0.8 * other) ** 2).sum(1)
    return np.stack([np.full(count, float(scored)), squared, naive], axis=1).tolist()


class Minutes:
    """The minute sums of one version, grown by hand."""

    def __init__(self, clock):
        self.clock, self.kept, self.version = clock, [], 1

    def grow(self, values):
        for each in values:
            self.kept.append(Minute(self.clock.now, tuple(each)))
            self.clock.now += 60.0

    def closed(self, model, series, after=float("-inf")):
        assert model == "toy"
        return [m for m in self.kept if m.start > after] if series == f"live:{self.version}" else []


def changes_here(series):
    """The detector within this process: quick, and the same."""
    from service.drift.detector import changes

    return {name: changes(values) for name, values in series.items()}


class Post:
    """A watch over one model, its metrics and its folder."""

    def __init__(self, folder):
        self.clock, self.store, self.registry, self.metrics = SettableClock(), open_store("memory://"), Registry(), None
        self.sums, self.metrics, self.folder = Minutes(self.clock), Metrics(), folder
        (folder / "toy").mkdir()
        serve(self.registry, make_spec(), LeakyIntegrator())
        self.rng = np.random.default_rng(SEED)
        self.watch = self.another()

    def another(self):
        lease, told = Lease(self.store, "drift", self.clock), self.metrics.drift
        return DriftWatch(
            self.registry, self.store, self.sums, lease, self.clock, told, self.folder, EVERY_S, changes_here
        )

    def pass_minutes(self, count, ratio, scored=10):
        """Live for so many minutes, looked at every five."""
        for _ in range(0, count, 5):
            self.sums.grow(minutes_of(self.rng, 5, ratio, scored))
            self.clock.now += 1.0
            assert self.watch.look()

    def noted(self):
        """(drifts counted, whether one stands)."""
        values = {}
        for line in self.metrics.exposition()[0].decode().splitlines():
            if line.startswith("recurve_drift") and "_created" not in line:
                values[line.partition("{")[0]] = float(line.rpartition(" ")[2])
        return values.get("recurve_drifts_total", 0.0), values.get("recurve_drift", 0.0)


@pytest.fixture
def post(tmp_path):
    print("seed", SEED)
    return Post(tmp_path)


@pytest.mark.parametrize("scored", [1, 10, 200])
def test_errors_that_grow_are_noticed_once(post, caplog, scored):
    with caplog.at_level(logging.WARNING, "service.drift"):
        post.pass_minutes(600, 0.8, scored)
        assert post.noted() == (0.0, 0.0)
        began = post.clock.now
        post.pass_minutes(600, 1.4, scored)
    assert post.noted() == (1.0, 1.0)
    found = read_drift(post.folder / "toy")
    assert found.version == 1
    assert abs(found.at - began) < 90 * 60
    assert found.before < 1.1 * 0.8 < 1.15 < found.after
    (logged,) = [record for record in caplog.records if record.message == "live errors have grown"]
    assert (logged.model, logged.version, logged.at) == ("toy", 1, found.at)


def test_ten_thousand_minutes_without_a_change_are_none(post):
    for _ in range(10):
        post.sums.grow(minutes_of(post.rng, 1000, 0.8))
        post.clock.now += EVERY_S
        assert post.watch.look()
        post.sums.kept.clear()
    assert post.noted() == (0.0, 0.0)
    assert read_drift(post.folder / "toy") is None
    assert len(decode(place("toy"), post.store.load(place("toy")).blob).minutes) == MOST


def test_errors_that_fall_are_no_drift_and_end_one(post):
    post.pass_minutes(300, 1.4)
    post.pass_minutes(300, 0.8)
    assert post.noted() == (0.0, 0.0)
    post.pass_minutes(300, 1.4)
    assert post.noted() == (1.0, 1.0)
    post.pass_minutes(300, 0.8)
    assert post.noted() == (1.0, 0.0)
    post.pass_minutes(300, 1.4)
    assert post.noted() == (2.0, 1.0)


def test_a_new_version_begins_with_a_clean_record(post):
    post.pass_minutes(300, 0.8)
    post.pass_minutes(300, 1.4)
    assert post.noted() == (1.0, 1.0)
    serve(post.registry, make_spec(version=2, fingerprint="11"), LeakyIntegrator(), generation=2)
    post.sums.version = 2
    post.sums.kept.clear()
    post.pass_minutes(300, 0.8)
    assert post.noted() == (1.0, 0.0)


def test_whoever_looks_next_goes_on_from_what_was_seen(post):
    post.pass_minutes(300, 0.8)
    post.watch = post.another()
    post.sums.kept.clear()  # a day later: the minutes are gone, the history is not
    post.pass_minutes(300, 1.4)
    post.watch = post.another()
    post.pass_minutes(100, 1.4)
    assert post.noted() == (1.0, 1.0)


def test_a_history_by_a_clock_that_was_ahead_begins_anew_once_the_clock_is_right(post):
    """Else nothing would be looked at until its last minute has passed, nor reported while drift.json is newer."""
    post.clock.now += 900 * 86400.0
    post.pass_minutes(300, 0.8)
    post.pass_minutes(300, 1.4)
    assert post.noted() == (1.0, 1.0)
    post.clock.now -= 900 * 86400.0
    post.sums.kept.clear()  # a fleet's: those to come are not closed
    post.pass_minutes(300, 0.8)
    assert post.noted() == (1.0, 0.0)
    post.pass_minutes(300, 1.4)
    assert post.noted() == (2.0, 1.0)
    assert read_drift(post.folder / "toy").at < post.clock.now


def test_one_who_notices_and_ends_before_it_says_so_is_made_up_for(post, monkeypatch):
    post.pass_minutes(300, 0.8)
    monkeypatch.setattr(watch, "report_drift", lambda folder, drift: None)
    post.pass_minutes(300, 1.4)
    monkeypatch.undo()
    assert read_drift(post.folder / "toy") is None
    post.clock.now += EVERY_S
    assert post.another().look()
    assert read_drift(post.folder / "toy").version == 1
    assert post.noted() == (1.0, 1.0)


def test_a_repository_that_cannot_be_written_leaves_metric_and_log(post, caplog):
    (post.folder / "toy").rmdir()
    (post.folder / "toy").write_text("in the way")
    with caplog.at_level(logging.WARNING, "service.drift"):
        post.pass_minutes(300, 0.8)
        post.pass_minutes(300, 1.4)
    assert post.noted() == (1.0, 1.0)
    assert [r.message for r in caplog.records] == ["live errors have grown", "the repository can't be told of it"]


def test_it_is_not_looked_at_more_often_than_is_due_nor_by_two(post):
    post.pass_minutes(5, 0.8)
    assert not post.another().look()
    post.clock.now += EVERY_S
    assert post.another().look()


def test_trouble_with_the_store_or_the_detector_is_survived(post, caplog):
    def away(*_):
        raise StoreUnavailable("away")

    def broken(_):
        raise DetectorFailed("no such module")

    post.sums.grow(minutes_of(post.rng, 40, 0.8))
    post.watch._detect = broken
    assert not post.watch.look()
    assert "no such module" in [getattr(record, "why", "") for record in caplog.records]
    post.watch._detect = changes_here
    post.clock.now += EVERY_S
    post.store.load, load = away, post.store.load
    assert not post.watch.look()
    post.store.load = load
    assert post.watch.look()
    assert len(decode(place("toy"), post.store.load(place("toy")).blob).minutes) == 40


def test_a_detector_that_does_not_work_is_asked_no_more_often_than_is_due(post):
    asked = []

    def broken(_):
        asked.append(post.clock.now)
        raise DetectorFailed("no such module")

    post.sums.grow(minutes_of(post.rng, 40, 0.8))
    began = post.clock.now
    workers = [post.watch, post.another(), post.another()]
    for worker in workers:
        worker._detect = broken
    for _ in range(40):
        for worker in workers:
            worker.look()
        post.clock.now += 15.0
    assert asked == [began, began + EVERY_S]


def test_a_look_that_is_broken_off_is_taken_up_at_once_by_another(post):
    def stopped(_):
        post.watch._stopped.set()
        raise DetectorFailed("it was ended")

    post.sums.grow(minutes_of(post.rng, 40, 0.8))
    post.watch._detect = stopped
    assert not post.watch.look()
    assert post.another().look()


def test_a_history_is_read_as_it_was_written_and_a_torn_one_begins_anew(post):
    post.pass_minutes(40, 0.8)
    key = place("toy")
    stored = post.store.load(key)
    history = decode(key, stored.blob)
    assert len(history.minutes) == 40
    assert encode(key, history) == stored.blob
    empty = History(3, (ErrorMinute(1.0, 2.0, 0.0),))
    assert decode(key, encode(key, empty)) == empty
    assert post.store.save(key, stored.nonce, b"torn....", stored.blob[:-1])
    post.pass_minutes(5, 0.8)
    assert decode(key, post.store.load(key).blob).version == 1


def test_the_process_apart_answers_as_the_detector_does():
    rng = np.random.default_rng(SEED)
    series = {
        "still": rng.uniform(0.2, 0.6, 400).tolist(),
        "grown": np.concatenate([rng.uniform(0.2, 0.6, 300), rng.uniform(0.5, 0.9, 200)]).tolist(),
        "short": [0.5],
    }
    apart = DetectorApart()(series)
    assert {name: [tuple(each) for each in found] for name, found in apart.items()} == changes_here(series)
    assert (apart["still"], apart["short"], len(apart["grown"])) == ([], [], 1)
    at, seen = apart["grown"][0]
    assert 270 < at <= 310 < seen < 400


def test_a_process_under_way_ends_with_the_watch():
    apart, failed = DetectorApart(), []

    def ask():
        try:
            apart({"long": [0.5] * 200_000})  # it takes a second to begin with
        except DetectorFailed as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: apart._process is not None, 120, "a process")
    apart.stop()
    asking.join(120)
    assert not asking.is_alive()
    assert len(failed) == 1
    assert apart._process.poll() is not None
    with pytest.raises(DetectorFailed):
        apart({"short": [0.5]})


@pytest.mark.parametrize("asked", ["", "{}", '{"series": {"a": [null]}}', "[]"])
def test_a_question_that_is_none_is_refused_in_one_line(asked):
    done = subprocess.run(
        [sys.executable, "-m", "service.drift"], input=asked, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected" in done.stderr.splitlines()[-1]


def test_the_running_service_reports_a_stream_whose_errors_jump_once_and_a_steady_one_never(tiny_repository, tmp_path):
    """Untrained models that expect a small move: as good as the last value while the series leaps, hopeless once it
    hardly moves. Minutes last a tenth of a second."""
    models = tmp_path / "models"
    shutil.copytree(tiny_repository, models)
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    where = {TRIPLE: np.array([10.0, 5.0, 1010.0]), SINGLE: np.array([10.0])}
    with (
        running_service(models, f"sqlite:///{tmp_path}/state", minute_s=0.1, drift_every_s=1) as running,
        requests.Session() as session,
    ):

        def stream(leap):
            for name, scale in ((TRIPLE, leap), (SINGLE, 5.0)):
                steps = where[name] + rng.normal(0, scale, (5, len(where[name]))).cumsum(0)
                where[name] = steps[-1]
                url = f"{running.url}/v1/models/{name}/clients/c/predict"
                answer = session.post(url, json={"observations": steps.tolist()}, timeout=30)
                assert answer.status_code == 200, answer.text

        def metric(name, model):
            text = session.get(f"{running.url}/metrics", timeout=30).text
            return sum(
                float(line.rpartition(" ")[2])
                for line in text.splitlines()
                if line.startswith(f'{name}{{model="{model}"')
            )

        began = time.time()
        while time.time() < began + 5 or metric("recurve_live_scored_total", SINGLE) < 300:
            stream(5.0)
            assert time.time() < began + 200
        jumped = time.time()
        while not metric("recurve_drifts_total", TRIPLE):
            stream(0.001)
            assert time.time() < jumped + 200, running.stderr()
        found = read_drift(models / TRIPLE)
        noticed = time.time()
        while time.time() < noticed + 2:
            stream(0.001)
        assert metric("recurve_drifts_total", TRIPLE) == metric("recurve_drift", TRIPLE) == 1
        assert metric("recurve_drifts_total", SINGLE) == metric("recurve_drift", SINGLE) == 0
        assert read_drift(models / TRIPLE) == found
        assert read_drift(models / SINGLE) is None
        assert found.version == 1
        assert began < found.at < noticed
        assert found.before < 2 < found.after
        logged = [json.loads(line) for line in running.stderr().splitlines() if "live errors have grown" in line]
        assert [(line["model"], line["at"]) for line in logged] == [(TRIPLE, found.at)]
        for pid in running.workers():
            loaded = Path(f"/proc/{pid}/maps").read_text()
            assert "/numpy/" in loaded
            assert "/river/" not in loaded
            assert "/scipy/" not in loaded
