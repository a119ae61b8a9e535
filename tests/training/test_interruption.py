"""A stop that is asked for is never lost: not where a library swallows it, and not beside the moment of publishing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.repository import Repository
from tests.models.samples import publish_sample

ROOT = Path(__file__).parents[2]

# A command of the group that publishes a small bundle; the signal comes from within the process, so the moment is
# exact. Each run is a fork of its own. What it was asked, and how it ended, is printed as a line of JSON.
RUN = """
import json, os, shutil, signal, sys, weakref
from pathlib import Path
from models.repository import Repository
from tests.models.samples import publish_sample, sample_manifest, write_sample
from models.errors import RepositoryError
from training.__main__ import main
from training.interruption import INTERRUPTION
from training.refusals import TrainingError
from training.quiet import quiet

def ask():
    os.kill(os.getpid(), signal.SIGINT)

class Asks:
    def __del__(self):
        ask()

def deleted():
    Asks()

def swallowed():
    try:
        ask()
    except:
        pass

def called_back():
    class Thing: pass
    thing = Thing()
    kept = weakref.ref(thing, lambda _: ask())
    del thing

def turned():
    try:
        ask()
    except KeyboardInterrupt:
        raise RuntimeError("a library's own words")

def held():
    with quiet():
        ask()
        Path(os.environ["RAN"]).touch()

def nothing():
    pass

def die_at(moment):
    os.fsync = lambda descriptor: None  # a stopped process leaves the same with it and without
    names = ("mkdir", "open", "fsync", "rename", "replace", "rmdir", "unlink", "close")
    count = 0
    def wrap(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == moment:
                ask()
            return real(*args, **kwargs)
        return call
    for name in names:
        setattr(os, name, wrap(getattr(os, name)))

def run(folder, before, moment):
    @main.command()
    def probe():
        before()
        INTERRUPTION.check()
        repository = Repository(folder)
        die_at(moment)
        with repository.stage("sensor") as staging:
            write_sample(staging)
            repository.publish(staging, sample_manifest(), last_word=INTERRUPTION.publishing)
    INTERRUPTION.listen()
    main(["probe"])

root = Path(sys.argv[1])
cases = [(case.__name__, case, 0) for case in (deleted, swallowed, called_back, turned, held)]
cases += [(str(moment), nothing, moment) for moment in range(1, 46)]
publish_sample(Repository(root / "before"))
for name, before, moment in cases:
    folder = shutil.copytree(root / "before", root / name)
    os.environ["RAN"] = str(folder / "ran")
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(folder / "err", os.O_CREAT | os.O_WRONLY), 2)
        run(folder, before, moment)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps([name, code]))
"""
WAYS = ("deleted", "swallowed", "called_back", "turned", "held")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By name of the run: its exit code, what it said, and the repository it left."""
    folder = tmp_path_factory.mktemp("asked")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    return {
        name: (code, (folder / name / "err").read_text(), folder / name)
        for name, code in map(json.loads, done.stdout.splitlines())
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_stop_that_a_library_swallows_still_stops_and_is_told_once(runs, way):
    code, said, folder = runs[way]
    assert (code, said) == (130, "\nStopped; nothing was published.\n")
    assert Repository(folder).versions("sensor") == [1]


def test_a_stop_while_python_runs_a_piece_of_text_ends_with_its_exit_code_and_not_by_the_signal():
    command = [sys.executable, "-m", "tests.stopped_in_text", "training"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (130, "\nStopped; nothing was published.\n")


def test_a_library_that_must_not_be_interrupted_is_not(runs):
    assert (runs["held"][2] / "ran").exists()


def test_a_stop_at_any_moment_of_publishing_ends_in_a_version_with_its_label_or_in_none(runs):
    outcomes = set()
    for name, (code, said, folder) in runs.items():
        if name in WAYS:
            continue
        repository = Repository(folder)
        found = (code, said, repository.versions("sensor"), repository.labels("sensor").labels)
        assert found in (
            (130, "\nStopped; nothing was published.\n", [1], {"stable": 1}),
            (0, "", [1, 2], {"stable": 2}),
        ), name
        for version in repository.versions("sensor"):
            repository.verify("sensor", version)
        outcomes.add(code)
    assert outcomes == {0, 130}


def test_what_a_stopped_run_left_is_cleared_by_the_next(runs, tmp_path):
    for name, (_, _, left) in runs.items():
        folder = shutil.copytree(left, tmp_path / name)
        repository = Repository(folder)
        before = repository.versions("sensor")[-1]
        assert publish_sample(repository) == before + 1
        assert list((folder / "sensor").glob(".staging-*")) == []
