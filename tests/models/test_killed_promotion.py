"""A judge killed at any moment: labels are the old or the new ones, evidence is there or not, and it goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.repository import Repository
from tests.models.test_killed_publish import KILLER, ROOT

EVIDENCE = {"verdict": "better", "series": [0.25] * 500}

# The same killer: what it kills now is a judge that keeps its evidence and promotes.
PUBLISH, JUDGE = "        publish_sample(repository)\n", "        judge(repository)\n"
BEGUN = "    publish_sample(repository)\n    pid"
assert PUBLISH in KILLER
assert BEGUN in KILLER
KILL_THE_JUDGE = KILLER.replace(PUBLISH, JUDGE).replace(
    BEGUN, '    publish_sample(repository)\n    publish_sample(repository, label="candidate")\n    pid'
).replace(
    "moment = 0\n",
    f"""def judge(repository):
    repository.keep_evidence("sensor", 2, {EVIDENCE!r}, instead_of=None)
    repository.promote("sensor", 2, expected_generation=2)

moment = 0
""",
)  # fmt: skip


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What judges left that were killed, by moment, and the calls they were killed at."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILL_THE_JUDGE, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    calls = done.stderr.split()
    assert len(calls) == int(done.stdout) - 1
    return calls, folder


@pytest.fixture
def killed(left, tmp_path):
    """A repository for every moment at which the judge was killed, and the calls it was killed at."""
    calls, folder = left
    shutil.copytree(folder, tmp_path / "killed", symlinks=True)
    return calls, [tmp_path / "killed" / str(moment) for moment in range(1, len(calls) + 1)]


def test_the_killer_reaches_every_kind_of_step_of_a_judge(killed):
    assert len(killed[0]) > 15
    assert {"mkdir", "open", "opened", "fsync", "replace"} <= set(killed[0])


def test_a_judge_killed_at_any_moment_leaves_old_or_new_labels_and_whole_evidence_or_none(killed):
    outcomes = set()
    for folder in killed[1]:
        repository = Repository(folder)
        labels, evidence = repository.labels("sensor"), repository.evidence("sensor", 2)
        assert evidence in (None, {"format": 1, **EVIDENCE})
        for version in repository.versions("sensor"):
            repository.verify("sensor", version)
        before = (2, {"stable": 1, "candidate": 2})
        assert (labels.generation, labels.labels) in (before, (3, {"stable": 2, "previous": 1}))
        outcomes.add((evidence is not None, labels.generation))
    assert outcomes == {(False, 2), (True, 2), (True, 3)}


def test_the_next_judge_does_what_a_killed_one_did_not(killed):
    for folder in killed[1]:
        repository = Repository(folder)
        if repository.evidence("sensor", 2) is None:
            assert repository.keep_evidence("sensor", 2, EVIDENCE, instead_of=None) is True
        if repository.labels("sensor").generation == 2:
            repository.promote("sensor", 2, expected_generation=2)
        assert repository.labels("sensor").labels == {"stable": 2, "previous": 1}
        assert repository.evidence("sensor", 2) == {"format": 1, **EVIDENCE}
        left = {entry.name for entry in Path(folder, "sensor").iterdir()}
        assert left == {".lock", "labels.json", "evidence", "1", "2"}
        assert {entry.name for entry in Path(folder, "sensor", "evidence").iterdir()} <= {"2.json", ".2.json.new"}
