"""The judge: a better candidate is served, a worse or undecided one dropped, its evidence kept, whatever happens."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from models.repository import Repository
from service.core.betting import LEAST
from service.core.errors import StoreUnavailable
from service.core.lease import Lease
from service.core.registry import Registry
from service.core.requests import Paired
from service.core.types import ClientKey
from service.judge import HOUR_S, Judge, PairedSums, Terms
from service.labels import RepositoryLabels
from service.loader import Loader
from service.minutes import MinuteSums
from service.stores import open_store
from tests.fakes import LeakyIntegrator, SettableClock
from tests.models.samples import publish_sample
from tests.serving import ROOT, wait_until
from training.job import load_job

NOON = 1_700_000_040.0
SERVED, CANDIDATE = "a" * 64, "c" * 64


class Observed:
    """What a judge told."""

    def __init__(self):
        self.trials, self.outcomes = [], []

    def observe_trial(self, *seen):
        self.trials.append(seen)

    def observe_outcome(self, model, outcome):
        self.outcomes.append(outcome)


class Court:
    """A process's judge over a repository and a store, with a clock that is set."""

    def __init__(self, root, url="memory://", clock=None, store=None, terms=None, minute_s=60.0):
        self.clock = clock or SettableClock(NOON)
        self.store = store or open_store(url)
        self.repository, self.registry, self.observed = Repository(root), Registry(), Observed()
        loader = Loader(self.repository, self.registry, lambda bundle, spec: LeakyIntegrator())
        loader.refresh()
        self.sums = MinuteSums(self.store, self.clock, minute_s)
        self.judge = Judge(
            self.registry,
            self.repository,
            RepositoryLabels(self.repository, loader),
            self.sums,
            Lease(self.store, "judge", self.clock),
            self.clock,
            self.observed,
            terms,
        )

    def minute(self, mean, steps=20, fingerprint=CANDIDATE):
        """One minute of a candidate whose steps differ by that much, then a look."""
        self.sums.add("sensor", f"shadow:{fingerprint[:16]}", (steps, mean * steps))
        self.sums.flush()
        self.clock.now += 60
        return self.judge.look()

    def minutes(self, mean, n):
        for _ in range(n):
            self.minute(mean)

    def labels(self):
        return self.repository.labels("sensor").labels

    def evidence(self, version=2):
        return self.repository.evidence("sensor", version)


@pytest.fixture
def root(tmp_path):
    """A repository in which version 1 is served and version 2 is its candidate."""
    repository = Repository(tmp_path / "published")
    publish_sample(repository, fingerprint=SERVED)
    publish_sample(repository, fingerprint=CANDIDATE, label="candidate")
    return tmp_path / "published"


@pytest.fixture
def court(root):
    return Court(root)


def test_a_better_candidate_is_served_at_the_level_and_its_predecessor_kept(court, caplog):
    caplog.set_level(logging.INFO)
    court.minutes(0.4, LEAST + 1)
    assert court.labels() == {"stable": 1, "candidate": 2}
    assert court.evidence()["verdict"] is None
    court.minutes(0.4, 3)
    assert court.labels() == {"stable": 2, "previous": 1}
    assert court.registry.model("sensor").labelled().spec.version == 2
    assert court.observed.outcomes == ["promoted"]
    found = court.evidence()
    assert (found["verdict"], found["version"], found["against"]) == ("better", 2, 1)
    assert (found["level"], found["generation"]) == (0.05, 2)
    assert found["deadline"] == found["began"] + 168 * HOUR_S
    assert found["wealth"]["better"] >= 20 > found["wealth"]["worse"]
    assert found["steps"] == sum(steps for _, _, steps, _ in found["observations"])
    assert found["steps"] == sum(seen[2] for seen in court.observed.trials) == 20 * LEAST
    assert found["mean"] == pytest.approx(0.4)
    assert "is served" in caplog.text
    assert court.minute(0.4) is True  # and nothing more happens
    assert court.evidence() == found


def test_a_worse_candidate_is_dropped_and_its_evidence_kept(court):
    court.minutes(-0.4, LEAST + 4)
    assert court.labels() == {"stable": 1}
    assert court.evidence()["verdict"] == "worse"
    assert court.observed.outcomes == ["worse"]
    assert list(court.registry.model("sensor").versions) == [1]


def test_one_that_is_undecided_at_its_deadline_is_dropped(root):
    court = Court(root, terms=Terms(deadline_h=1.0))
    court.minutes(0.0, 59)
    assert court.labels() == {"stable": 1, "candidate": 2}
    court.minutes(0.0, 3)
    assert court.labels() == {"stable": 1}
    assert court.evidence()["verdict"] == "undecided"
    assert court.observed.outcomes == ["undecided"]


def test_a_candidate_that_nobody_steps_under_is_dropped_at_its_deadline(root):
    court = Court(root, terms=Terms(deadline_h=1.0))
    court.judge.look()
    court.clock.now += HOUR_S
    court.judge.look()
    assert (court.labels(), court.evidence()["verdict"]) == ({"stable": 1}, "undecided")
    assert court.evidence()["mean"] is None


def test_the_job_that_made_a_candidate_names_its_level_and_deadline(root):
    repository = Repository(root)
    for retrain, expected in (
        ({"level": 0.01, "deadline_hours": 2}, (0.01, 2)),
        ({"level": 7.0, "deadline_hours": "soon"}, (0.05, 168)),
        (None, (0.05, 168)),
    ):
        version = publish_sample(repository, fingerprint="e" * 64, label="candidate", job={"retrain": retrain})
        court = Court(root)
        court.judge.look()
        found = court.evidence(version)
        assert (found["level"], (found["deadline"] - found["began"]) / HOUR_S) == expected


@pytest.mark.parametrize(
    ("table", "level", "hours"),
    [("", 0.01, 24.0), ("level = 0.05", 0.05, 24.0), ("level = 0.2\ndeadline_hours = 2", 0.2, 2.0)],
)
def test_a_job_file_that_names_no_terms_leaves_them_to_the_operator(tmp_path, table, level, hours):
    """A manifest holds the job with its defaults: they are no words of whoever wrote it."""
    path = tmp_path / "lab.toml"
    shipped = (ROOT / "training" / "jobs" / "sensor.toml").read_text()
    path.write_text(shipped.replace("[retrain]", f"[retrain]\n{table}"))
    job = load_job(str(path)).model_dump(mode="json")
    assert Terms(level=0.01, deadline_h=24.0).of(job) == (level, hours)


def test_with_promotion_off_the_verdict_is_kept_and_the_labels_are_left(root):
    court = Court(root, terms=Terms(promote=False))
    court.minutes(0.4, LEAST + 5)
    assert court.labels() == {"stable": 1, "candidate": 2}
    found = court.evidence()
    assert found["verdict"] == "better"
    assert court.observed.outcomes == ["left"]
    court.repository.set_label("sensor", "mine", 1)
    court.minutes(-0.4, 5)
    assert court.evidence() == found


def test_two_judges_take_turns_and_count_every_minute_once(root):
    one = Court(root)
    other = Court(root, clock=one.clock, store=one.store)
    for n in range(LEAST - 2):
        one.sums.add("sensor", "shadow:" + CANDIDATE[:16], (4, 2.0))
        one.sums.flush()
        one.clock.now += 60
        looks = [court.judge.look() for court in ((one, other) if n % 3 else (other, one))]
        assert looks == [True, False]
    one.clock.now += 300
    assert other.judge.look() is True
    assert one.evidence()["steps"] == 4 * (LEAST - 4)  # two minutes had begun before the trial
    assert sum(seen[2] for court in (one, other) for seen in court.observed.trials) == 4 * (LEAST - 4)
    assert [start for start, *_ in one.evidence()["observations"]] == [NOON + 120 + 60 * n for n in range(LEAST - 4)]


def test_of_two_judges_that_hold_the_lease_at_once_one_counts_and_one_promotes(root):
    one = Court(root)
    one.minutes(0.4, LEAST)
    courts = [Court(root, clock=one.clock, store=one.store) for _ in range(4)]
    for _ in range(3):
        one.sums.add("sensor", "shadow:" + CANDIDATE[:16], (20, 8.0))
        one.sums.flush()
        one.clock.now += 60 + 5
        threads = [threading.Thread(target=court.judge._looked_at, args=("sensor",)) for court in courts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert one.labels() == {"stable": 2, "previous": 1}
    assert one.repository.labels("sensor").generation == 3
    assert [outcome for court in courts for outcome in court.observed.outcomes] == ["promoted"]
    assert one.evidence()["verdict"] == "better"
    seen = [seen[2] for court in (one, *courts) for seen in court.observed.trials]
    assert sum(seen) == one.evidence()["steps"]


def test_the_next_judge_goes_on_from_what_was_kept_though_the_minutes_are_gone(root):
    one = Court(root)
    one.minutes(0.4, LEAST - 5)
    before = one.evidence()
    other = Court(root, clock=one.clock)  # over another store: none of the minutes is there
    other.minutes(0.4, 2)
    found = other.evidence()
    assert found["observations"][: len(before["observations"])] == before["observations"]
    assert found["log10_wealth"]["better"][: len(before["observations"])] == before["log10_wealth"]["better"]
    other.minutes(0.4, 8)
    assert other.labels() == {"stable": 2, "previous": 1}


def test_what_was_added_before_the_trial_began_does_not_count(court):
    for _ in range(LEAST):
        court.sums.add("sensor", "shadow:" + CANDIDATE[:16], (20, 10.0))
        court.sums.flush()
        court.clock.now += 60
    court.judge.look()
    court.clock.now += 120
    court.judge.look()
    assert court.evidence()["steps"] == 0


def test_when_another_version_is_served_meanwhile_the_trial_begins_anew_against_it(court):
    court.minutes(0.4, LEAST - 3)
    publish_sample(court.repository, fingerprint="d" * 64)
    court.minutes(0.4, 6)
    found = court.evidence()
    assert court.labels() == {"stable": 3, "candidate": 2}
    assert (found["against"], found["verdict"], found["minutes"]) == (3, None, 3)
    assert [(each["against"], each["verdict"]) for each in found["earlier"]] == [(1, None)]


def test_a_candidate_that_was_dropped_and_is_labelled_again_gets_another_trial(court):
    court.minutes(-0.4, LEAST + 4)
    assert court.labels() == {"stable": 1}
    court.repository.set_label("sensor", "candidate", 2)
    court.minutes(0.4, LEAST + 4)
    assert court.labels() == {"stable": 2, "previous": 1}
    assert [each["verdict"] for each in court.evidence()["earlier"]] == ["worse"]
    assert "observations" not in court.evidence()["earlier"][0]


def test_a_candidate_that_was_taken_away_undecided_and_is_labelled_again_late_gets_its_whole_time(root):
    court = Court(root, terms=Terms(deadline_h=1.0))
    court.minutes(0.0, 5)
    court.repository.drop_label("sensor", "candidate")
    court.minutes(0.0, 60)
    court.repository.set_label("sensor", "candidate", 2)
    court.minutes(0.4, 4)
    assert court.labels() == {"stable": 1, "candidate": 2}
    assert [each["verdict"] for each in court.evidence()["earlier"]] == [None]
    court.minutes(0.4, LEAST)
    assert court.labels() == {"stable": 2, "previous": 1}


@pytest.mark.parametrize("ahead_s", [3600.0, 900 * 86400.0])
def test_a_trial_by_a_clock_that_was_ahead_begins_anew_once_the_clock_is_right(court, ahead_s):
    """Its last minute is yet to come, and its deadline may be years away: nothing would be judged until then."""
    court.clock.now += ahead_s
    court.minutes(0.4, 3)
    court.clock.now -= ahead_s
    court.minutes(0.4, LEAST + 5)
    assert court.labels() == {"stable": 2, "previous": 1}
    assert court.evidence()["earlier"][-1]["verdict"] is None


def test_labels_that_move_between_evidence_and_promotion_are_not_overruled(court, monkeypatch):
    court.minutes(0.4, LEAST + 1)
    keep = court.repository.keep_evidence

    def kept_late(name, version, evidence, **more):
        done = keep(name, version, evidence, **more)
        if evidence["verdict"] is not None and version == 2:
            publish_sample(court.repository, fingerprint="d" * 64, label="candidate")
        return done

    monkeypatch.setattr(court.repository, "keep_evidence", kept_late)
    court.minutes(0.4, 4)
    assert court.labels() == {"stable": 1, "candidate": 3}
    assert court.evidence()["verdict"] == "better"
    assert court.evidence(3)["verdict"] is None
    assert court.observed.outcomes == []


def test_a_repository_that_can_not_be_written_is_logged_once_and_told_and_what_is_served_goes_on(court, caplog):
    (court.repository.root / "sensor" / "evidence").write_bytes(b"in the way")
    court.minutes(0.4, 4)
    assert caplog.text.count("can't be judged") == 1
    assert court.observed.outcomes == ["unwritable"] * 4
    assert court.labels() == {"stable": 1, "candidate": 2}
    (court.repository.root / "sensor" / "evidence").unlink()
    court.minutes(0.4, LEAST + 4)
    assert court.labels() == {"stable": 2, "previous": 1}


def test_a_candidate_that_is_no_longer_what_was_published_is_not_promoted(court, caplog):
    (court.repository.root / "sensor" / "2" / "saved_model.pb").write_bytes(b"other")
    court = Court(court.repository.root, clock=court.clock, store=court.store)
    court.minutes(0.4, LEAST + 6)
    assert court.labels() == {"stable": 1, "candidate": 2}
    assert court.evidence()["verdict"] == "better"
    assert caplog.text.count("a candidate can't be judged") == 1
    assert court.observed.outcomes == []


def test_models_in_trouble_do_not_hold_up_others(root, caplog):
    repository = Repository(root)
    publish_sample(repository, "another", fingerprint=SERVED)
    publish_sample(repository, "another", fingerprint=CANDIDATE, label="candidate")
    court = Court(root)
    (root / "another" / "labels.json").write_bytes(b"{")
    assert court.minute(0.4) is True
    assert court.evidence() is not None
    assert "another" in caplog.records[-1].model or "can't be judged" in caplog.text


def test_a_store_that_is_away_puts_a_look_off(court, caplog, monkeypatch):
    court.minutes(0.4, 5)
    list_, before = court.store.list, court.evidence()

    def away(*args):
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(court.store, "list", away)
    assert court.minute(0.4) is False
    assert "broken off" in caplog.text
    assert court.evidence() == before
    monkeypatch.setattr(court.store, "list", list_)
    court.judge.look()
    assert court.evidence()["minutes"] == before["minutes"] + 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: "{",
        lambda kept: json.dumps({**kept, "earlier": None}),
        lambda kept: json.dumps({**kept, "observations": [[0.0, 1, 1e999, 0.0]]}),
        lambda kept: "[" * 100_000,
    ],
    ids=["torn", "earlier", "infinite", "deep"],
)
def test_evidence_that_does_not_read_begins_the_trial_anew(court, spoil):
    court.minutes(0.4, 8)
    (court.repository.root / "sensor" / "evidence" / "2.json").write_text(spoil(court.evidence()))
    court.minutes(0.4, 4)
    assert court.evidence()["minutes"] == 1


def test_the_thread_judges_and_ends_when_it_is_stopped(root):
    court = Court(root, minute_s=0.05)
    before = set(threading.enumerate())
    court.judge.start()
    wait_until(lambda: court.evidence() is not None, 120, "evidence")
    court.judge.stop()
    assert set(threading.enumerate()) <= before


def test_a_request_s_paired_differences_are_added_to_its_candidates_minute(court):
    witness = PairedSums(court.sums)
    key = ClientKey("default", "sensor", "c")

    class Told:
        paired = None

    for paired in (Paired(CANDIDATE, 3, 0.75), None, Paired(CANDIDATE, 1, -0.25)):
        told = Told()
        told.paired = paired
        witness.witness(key, None, told)
    court.sums.flush()
    court.clock.now += 65
    assert court.sums.closed("sensor", "shadow:" + CANDIDATE[:16]) == [(NOON, (4, 0.5))]


# Looks of judges that are killed right before their k-th call that changes the disk, for each k in turn.
KILLER = """
import io, os, shutil, signal, sys
from pathlib import Path
from tests.service.test_judge import CANDIDATE, Court

NAMES = ("mkdir", "open", "fsync", "replace", "close")

def die_at(moment):
    count = 0
    def tick(name):
        nonlocal count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    def wrap(name, real):
        def call(*args, **kwargs):
            tick(name)
            return real(*args, **kwargs)
        return call
    def opening(*args, **kwargs):
        file = io_open(*args, **kwargs)
        tick("opened")
        return file
    io_open, io.open = io.open, opening
    for name in NAMES:
        setattr(os, name, wrap(name, getattr(os, name)))

source, target = Path(sys.argv[1]), Path(sys.argv[2])
moment = 0
while True:
    moment += 1
    root = target / str(moment)
    shutil.copytree(source, root)
    court = Court(root)
    court.clock.now = float(sys.argv[3])
    court.sums.add("sensor", "shadow:" + CANDIDATE[:16], (20, 8.0))
    court.sums.flush()
    court.clock.now += 65
    pid = os.fork()
    if pid == 0:
        die_at(moment)
        court.judge.look()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        break
print(moment)
"""


def test_a_judge_killed_at_any_moment_of_a_promotion_is_followed_by_one_that_ends_it(root, tmp_path):
    court = Court(root)
    court.minutes(0.4, LEAST + 1)
    court.minutes(0.4, 1)
    assert court.labels() == {"stable": 1, "candidate": 2}  # the next minute decides
    command = [sys.executable, "-c", KILLER, str(root), str(tmp_path / "killed"), str(court.clock.now)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    moments, outcomes = int(done.stdout), set()
    assert moments > 20
    for moment in range(1, moments):
        copy = tmp_path / "killed" / str(moment)
        next_ = Court(copy, clock=SettableClock(court.clock.now + 200))
        found, labels = next_.evidence(), next_.labels()
        outcomes.add((found["verdict"], "candidate" in labels))
        next_.repository.verify("sensor", labels["stable"])
        next_.minutes(0.4, 4)
        assert next_.labels() == {"stable": 2, "previous": 1}
        assert next_.evidence()["verdict"] == "better"
        assert next_.repository.labels("sensor").generation == 3
        shutil.rmtree(copy)
    assert outcomes == {(None, True), ("better", True), ("better", False)}
    assert done.returncode != -signal.SIGKILL
    assert json.dumps(court.evidence()) is not None
    assert np.isfinite(court.evidence()["wealth"]["better"])
