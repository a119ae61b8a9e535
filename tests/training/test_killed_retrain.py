"""A retrain killed at any moment of publishing, labelling and clearing away, and one that is stopped from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.disk import try_lock
from models.repository import Repository
from tests.models.samples import publish_sample
from tests.serving import wait_until
from training.retention import clear_old, finish_publishing

ROOT = Path(__file__).parents[2]

# What a run does to the repository once its candidate is trained and judged, with a small bundle in its place; a
# fork of it for each moment, killed right before its k-th call that changes the disk. The code has no hooks: the child
# wraps the functions it calls.
KILLER = """
import io, os, shutil, signal, sys
from pathlib import Path
from models.repository import Repository
from tests.models.samples import publish_sample, sample_manifest, write_sample
from training.pipeline import keep_report
from training.retention import clear_old, finish_publishing
from training.retrain import only_run

NAMES = ("mkdir", "open", "fsync", "rename", "replace", "rmdir", "unlink", "close")

def die_at(moment):
    count = 0
    def tick(name):
        nonlocal count
        count += 1
        if count == moment:
            os.write(2, f"{name}\\n".encode())
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
    os.fsync = lambda descriptor: None  # a killed process leaves the same with it and without
    for name in NAMES:
        setattr(os, name, wrap(name, getattr(os, name)))

def run(repository, published):
    with only_run(repository, "sensor") as alone:
        assert alone
        finish_publishing(repository, "sensor")
        with repository.stage("sensor") as staging:
            write_sample(staging)
            (staging / "report").mkdir()
            (staging / "report" / "report.html").write_text("why")
            generation = repository.labels("sensor").generation
            decided = {"decision": {"label": "candidate" if published else None, "generation": generation}}
            manifest = sample_manifest(scores=decided)
            (staging / "manifest.json").write_text(manifest.model_dump_json())
            if not published:
                keep_report(repository, staging, "sensor")
                return
            repository.publish(staging, manifest, "candidate")
        clear_old(repository, "sensor", 2)

def walk(root, published):
    before, moment = Repository(root / "before"), 0
    for label in (None, "stable", None, None):
        publish_sample(before, label=label)
    (before.root / "sensor.refused").mkdir()
    (before.root / "sensor.refused" / "report.html").write_text("an older why")
    while True:
        moment += 1
        repository = Repository(shutil.copytree(before.root, root / str(moment)))
        pid = os.fork()
        if pid == 0:
            die_at(moment)
            run(repository, published)
            os._exit(0)
        if os.WIFEXITED(os.waitpid(pid, 0)[1]):
            return moment

print(walk(Path(sys.argv[1], "published"), True), walk(Path(sys.argv[1], "rejected"), False))
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Where what killed runs left is, how many moments there were of each kind, and the calls they were killed at."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    return folder, dict(zip(("published", "rejected"), map(int, done.stdout.split()), strict=True)), done.stderr.split()


@pytest.fixture
def killed(left, tmp_path):
    """Repositories of publishing runs and of rejecting ones, by the moment of the kill, and the calls it came at."""
    folder, moments, calls = left
    shutil.copytree(folder, tmp_path / "killed", symlinks=True)
    where = tmp_path / "killed"
    return {what: [Repository(where / what / str(m)) for m in range(1, n)] for what, n in moments.items()}, calls


def test_the_killer_reaches_every_kind_of_step(killed):
    found, calls = killed
    assert len(calls) == len(found["published"]) + len(found["rejected"])
    assert len(found["published"]) > 50
    assert {"mkdir", "open", "opened", "fsync", "rename", "replace", "rmdir", "unlink"} <= set(calls)


def test_a_retrain_killed_at_any_moment_leaves_whole_versions_that_are_served_and_honest_labels(killed):
    outcomes = set()
    for repository in killed[0]["published"]:
        versions, labels = repository.versions("sensor"), repository.labels("sensor").labels
        assert versions in ([1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5], [2, 4, 5])
        for version in versions:
            repository.verify("sensor", version)
        assert labels in ({"stable": 2}, {"stable": 2, "candidate": 5})
        assert set(labels.values()) <= set(versions)
        assert repository.resolve("sensor") == 2
        outcomes.add((tuple(versions), len(labels)))
    assert outcomes == {
        ((1, 2, 3, 4), 1), ((1, 2, 3, 4, 5), 1), ((1, 2, 3, 4, 5), 2), ((2, 3, 4, 5), 2), ((2, 4, 5), 2),
    }  # fmt: skip


def test_the_next_run_gives_a_version_the_label_it_was_to_have(killed):
    made_up_for = 0
    for repository in killed[0]["published"]:
        before = repository.labels("sensor").labels
        if finish_publishing(repository, "sensor") is not None:
            made_up_for += 1
            assert before == {"stable": 2}
        there = 5 in repository.versions("sensor")
        assert repository.labels("sensor").labels == {"stable": 2} | ({"candidate": 5} if there else {})
        assert finish_publishing(repository, "sensor") is None
    assert made_up_for > 0


def test_a_label_that_was_taken_away_since_is_not_given_again(tmp_path):
    repository = Repository(tmp_path)
    publish_sample(repository)
    decided = {"decision": {"label": "candidate", "generation": 1}}
    publish_sample(repository, label="candidate", scores=decided)
    repository.drop_label("sensor", "candidate")
    assert finish_publishing(repository, "sensor") is None
    assert repository.labels("sensor").labels == {"stable": 1}


def test_the_version_that_was_just_replaced_stays_for_a_rollback(tmp_path):
    repository = Repository(tmp_path)
    for _ in range(3):
        publish_sample(repository)
    assert clear_old(repository, "sensor", 1, 2) == [1]
    assert repository.set_label("sensor", "stable", 2).labels == {"stable": 2}
    publish_sample(repository)
    assert clear_old(repository, "sensor", 1, 3) == [2]


def test_a_damaged_version_without_its_label_stands_in_no_later_runs_way(tmp_path):
    repository = Repository(tmp_path)
    publish_sample(repository)
    decided = {"decision": {"label": "candidate", "generation": 1}}
    publish_sample(repository, label=None, scores=decided)
    (repository.bundle("sensor", 2) / "saved_model.pb").write_bytes(b"other")
    assert finish_publishing(repository, "sensor") is None
    assert repository.labels("sensor").labels == {"stable": 1}


def test_a_rejection_killed_at_any_moment_leaves_the_versions_as_they_were_and_a_whole_report_or_none(killed):
    reports = set()
    for repository in killed[0]["rejected"]:
        assert repository.versions("sensor") == [1, 2, 3, 4]
        assert repository.labels("sensor").labels == {"stable": 2}
        assert repository.names() == ["sensor"]
        kept = repository.root / "sensor.refused"
        files = sorted(file.name for file in kept.iterdir()) if kept.exists() else []
        assert files in ([], ["report.html"], ["manifest.json", "report.html"])
        reports.add((kept / "report.html").read_text() if files else "")
    assert reports == {"", "why", "an older why"}


def test_what_killed_runs_left_is_cleared_by_the_next_publish(killed):
    for repository in [*killed[0]["published"][::3], *killed[0]["rejected"][::3]]:
        before = repository.versions("sensor")[-1]
        assert publish_sample(repository) == before + 1
        assert list((repository.root / "sensor").glob(".staging-*")) == []


JOB = """
name = "slow"
[source]
path = "slow.csv"
[[features]]
name = "level"
[[targets]]
name = "level"
"""


class Waiting:
    """A retrain whose data is a pipe that nobody writes to: it holds its lock and waits."""

    def __init__(self, folder, begin):
        self.models = folder / "models"
        (folder / "slow.toml").write_text(JOB)
        os.mkfifo(folder / "slow.csv")
        self.command = [sys.executable, "-m", "training", "retrain", str(folder / "slow.toml"), "--json"]
        self.command += ["--models-dir", str(self.models), "--cache", str(folder / "cache")]
        self.process = begin(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: self.locked() or self.process.poll() is not None, 300, "a run that has the lock")
        assert self.process.poll() is None, self.process.communicate()

    def locked(self):
        """Whether some process has the model's lock."""
        try:
            held = try_lock(self.models / "slow" / ".retrain.lock", create=False)
        except FileNotFoundError:
            return False
        if held is not None:
            os.close(held)
        return held is None


def test_a_run_that_is_stopped_says_so_and_lets_go_of_its_lock(tmp_path, begin):
    waiting = Waiting(tmp_path, begin)
    second = subprocess.run(waiting.command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (second.returncode, json.loads(second.stdout)["outcome"]) == (5, "locked")
    waiting.process.send_signal(signal.SIGTERM)
    out, err = waiting.process.communicate(timeout=300)
    found = json.loads(out)
    assert (waiting.process.returncode, found["outcome"], found["exit"]) == (130, "interrupted", 130)
    assert "Stopped; nothing was published." in err
    assert "Traceback" not in err
    assert not waiting.locked()
    assert Repository(waiting.models).names() == []


def test_a_killed_run_holds_no_lock(tmp_path, begin):
    waiting = Waiting(tmp_path, begin)
    waiting.process.kill()
    waiting.process.communicate(timeout=300)
    assert not waiting.locked()
