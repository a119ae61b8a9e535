"""Promotion and its evidence: one change of the labels, on the labels that were judged, and a file beside it."""

import subprocess
import sys

import pytest

from models.errors import BundleDamaged, LabelsMoved, UnknownVersion
from models.repository import Repository
from tests.models.samples import publish_sample


@pytest.fixture
def repository(tmp_path):
    """Version 1 is served, version 2 its candidate; the labels are of generation 2."""
    repository = Repository(tmp_path)
    publish_sample(repository)
    publish_sample(repository, label="candidate")
    return repository


def test_a_promotion_is_one_change_that_keeps_the_predecessor_for_a_rollback(repository):
    labels = repository.promote("sensor", 2, expected_generation=2)
    assert labels == repository.labels("sensor")
    assert (labels.generation, labels.labels) == (3, {"stable": 2, "previous": 1})
    with pytest.raises(LabelsMoved):
        repository.promote("sensor", 2, expected_generation=2)
    assert repository.promote("sensor", 2, expected_generation=3).generation == 3


def test_a_promotion_leaves_another_candidate_and_other_labels_alone(repository):
    repository.set_label("sensor", "mine", 1)
    publish_sample(repository, label="candidate")
    labels = repository.promote("sensor", 2, expected_generation=4)
    assert labels.labels == {"stable": 2, "previous": 1, "candidate": 3, "mine": 1}


def test_what_was_decided_on_other_labels_changes_nothing(repository):
    repository.set_label("sensor", "mine", 1)
    before = repository.labels("sensor")
    with pytest.raises(LabelsMoved, match="generation 3, not 2"):
        repository.promote("sensor", 2, expected_generation=2)
    with pytest.raises(LabelsMoved):
        repository.drop_label("sensor", "candidate", expected_generation=2)
    assert repository.labels("sensor") == before
    assert "candidate" not in repository.drop_label("sensor", "candidate", expected_generation=3).labels


def test_a_version_that_is_gone_or_damaged_is_not_promoted(repository):
    (repository.root / "sensor" / "2" / "saved_model.pb").write_bytes(b"other")
    for version, error in ((2, BundleDamaged), (3, UnknownVersion)):
        with pytest.raises(error):
            repository.promote("sensor", version, expected_generation=2)
    assert repository.labels("sensor").labels == {"stable": 1, "candidate": 2}


def test_of_two_that_promote_at_once_one_does(repository, begin):
    code = (
        "import sys\nfrom models.repository import Repository\nfrom models.errors import LabelsMoved\n"
        "try: print(Repository(sys.argv[1]).promote('sensor', 2, 2).generation)\n"
        "except LabelsMoved: print('moved')"
    )
    command = [sys.executable, "-c", code, str(repository.root)]
    judges = [begin(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(judge.communicate(timeout=300)[0].strip() for judge in judges) == ["3", "moved", "moved"]


def test_evidence_is_kept_beside_the_version_which_stays_as_published(repository):
    assert repository.evidence("sensor", 2) is None
    assert repository.keep_evidence("sensor", 2, {"steps": 3}) is True
    assert repository.evidence("sensor", 2) == {"format": 1, "steps": 3}
    repository.verify("sensor", 2)
    assert repository.versions("sensor") == [1, 2]
    assert repository.names() == ["sensor"]
    publish_sample(repository, label=None)
    repository.drop_label("sensor", "candidate")
    repository.delete("sensor", 2)
    assert repository.evidence("sensor", 2)["steps"] == 3
    with pytest.raises(UnknownVersion):
        repository.keep_evidence("sensor", 2, {})


def test_evidence_replaces_only_what_its_writer_read(repository):
    assert repository.keep_evidence("sensor", 2, {"steps": 1}, instead_of=None) is True
    read = repository.evidence("sensor", 2)
    assert repository.keep_evidence("sensor", 2, {"steps": 9}, instead_of=None) is False
    assert repository.evidence("sensor", 2) == read
    assert repository.keep_evidence("sensor", 2, {**read, "steps": 2}, instead_of=read) is True
    assert repository.evidence("sensor", 2)["steps"] == 2


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"format": 2}', b'{"steps": 1}', b"\xff"])
def test_evidence_that_does_not_read_is_none(repository, content):
    repository.keep_evidence("sensor", 2, {"steps": 1})
    (repository.root / "sensor" / "evidence" / "2.json").write_bytes(content)
    assert repository.evidence("sensor", 2) is None


def test_numbers_that_json_has_no_word_for_are_refused_and_the_old_evidence_stays(repository):
    repository.keep_evidence("sensor", 2, {"steps": 1})
    with pytest.raises(ValueError, match="Out of range"):
        repository.keep_evidence("sensor", 2, {"mean": float("nan")})
    assert repository.evidence("sensor", 2) == {"format": 1, "steps": 1}


def test_a_repository_that_can_not_be_written_says_so(repository):
    (repository.root / "sensor" / "evidence").write_bytes(b"in the way, also of root")
    with pytest.raises(OSError, match="evidence"):
        repository.keep_evidence("sensor", 2, {})
    assert repository.evidence("sensor", 2) is None
