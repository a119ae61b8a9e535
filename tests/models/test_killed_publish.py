"""A publisher killed at any moment: what is published is whole, what is not is ignored and later cleared."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.repository import Repository
from tests.models.samples import publish_sample

ROOT = Path(__file__).parents[2]

# Forks a publisher per moment and kills it right before its k-th call that changes the disk, or right after it opened
# a file to write, for each k in turn. The production code has no hooks: the child wraps the functions it calls.
KILLER = """
import io, os, signal, sys
from pathlib import Path
from models.repository import Repository
from tests.models.samples import publish_sample

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
    for name in NAMES:
        setattr(os, name, wrap(name, getattr(os, name)))

moment = 0
while True:
    moment += 1
    folder = Path(sys.argv[1], str(moment))
    repository = Repository(folder)
    publish_sample(repository)
    pid = os.fork()
    if pid == 0:
        die_at(moment)
        publish_sample(repository)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        break
print(moment)
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What publishes left that were killed, by moment, and the calls they were killed at."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    calls = done.stderr.split()
    assert len(calls) == int(done.stdout) - 1
    return calls, folder


@pytest.fixture
def killed(left, tmp_path):
    """A repository for every moment at which a second publish was killed, and the calls it was killed at."""
    calls, folder = left
    shutil.copytree(folder, tmp_path / "killed", symlinks=True)
    return calls, [tmp_path / "killed" / str(moment) for moment in range(1, len(calls) + 1)]


def test_the_killer_reaches_every_kind_of_step(killed):
    calls, _ = killed
    assert len(calls) > 20
    assert {"mkdir", "open", "opened", "fsync", "rename", "replace"} <= set(calls)


def test_a_publish_killed_at_any_moment_leaves_whole_versions_and_honest_labels(killed):
    outcomes = set()
    for folder in killed[1]:
        repository = Repository(folder)
        versions = repository.versions("sensor")
        assert versions in ([1], [1, 2])
        for version in versions:
            repository.verify("sensor", version)
        labels = repository.labels("sensor")
        assert (labels.generation, labels.labels) in ((1, {"stable": 1}), (2, {"stable": 2}))
        assert repository.resolve("sensor") in versions
        outcomes.add((len(versions), labels.generation))
    assert outcomes == {(1, 1), (2, 1), (2, 2)}


def test_the_next_publish_clears_what_killed_ones_left_and_goes_on(killed):
    for folder in killed[1]:
        repository = Repository(folder)
        before = repository.versions("sensor")
        assert publish_sample(repository) == before[-1] + 1
        assert repository.resolve("sensor") == before[-1] + 1
        left = {entry.name for entry in (folder / "sensor").iterdir()}
        assert left == {".lock", "labels.json", *map(str, repository.versions("sensor"))}
        json.loads((folder / "sensor" / "labels.json").read_bytes())


def test_publishers_in_many_processes_get_different_versions(tmp_path, begin):
    code = (
        "import sys; from models.repository import Repository; from tests.models.samples import publish_sample\n"
        "for _ in range(5): print(publish_sample(Repository(sys.argv[1])))"
    )
    publishers = [
        begin([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    versions = [int(line) for publisher in publishers for line in publisher.communicate(timeout=300)[0].split()]
    assert sorted(versions) == list(range(1, 21))
    repository = Repository(tmp_path)
    assert repository.labels("sensor").generation == 20
    assert repository.resolve("sensor") == 20
