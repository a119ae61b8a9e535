"""Labels moved while serving: loaded before they move, served when they have moved, refused before anything changes."""

import os

import pytest

from models.disk import locked
from service.core import errors as core
from service.labels import RepositoryLabels
from tests.service.test_loader import Desk


class LabelDesk(Desk):
    """Two published versions of a model, the first stable, and hands on their labels."""

    def __init__(self, root):
        super().__init__(root)
        self.repository._lock_wait_s = 0.05
        self.labels = RepositoryLabels(self.repository, self.loader)
        self.publish()
        self.publish(label=None)
        self.loader.refresh()

    def kept(self):
        labels = self.repository.labels("toy")
        return labels.generation, labels.labels


@pytest.fixture
def desk(tmp_path):
    return LabelDesk(tmp_path / "models")


def test_a_move_is_served_when_it_is_answered_and_loaded_once(desk):
    now = desk.labels.move("toy", "candidate", 2, None)
    assert (now.generation, now.labels) == (2, {"candidate": 2, "stable": 1})
    assert desk.registry.model("toy").labels == now.labels
    assert desk.labels.labels("toy") == now
    assert desk.opened == [("toy", 1), ("toy", 2)]


def test_a_promotion_keeps_what_was_served_and_a_rollback_is_the_same_call(desk):
    desk.labels.move("toy", "candidate", 2, None)
    now = desk.labels.move("toy", "stable", 2, 2)
    assert (now.generation, now.labels) == (3, {"previous": 1, "stable": 2})
    assert desk.registry.model("toy").labelled().spec.version == 2
    back = desk.labels.move("toy", "stable", 1, None)
    assert back.labels == {"previous": 2, "stable": 1}
    assert desk.registry.model("toy").labelled().spec.version == 1
    assert desk.opened == [("toy", 1), ("toy", 2)], "neither was loaded twice"


def test_the_same_move_again_changes_no_generation(desk):
    first = desk.labels.move("toy", "stable", 2, None)
    assert desk.labels.move("toy", "stable", 2, None) == first


def test_a_label_is_taken_away_and_stable_is_not(desk):
    desk.labels.move("toy", "candidate", 2, None)
    assert desk.labels.drop("toy", "candidate", 2).labels == {"stable": 1}
    assert list(desk.registry.model("toy").versions) == [1]
    with pytest.raises(core.LabelKept):
        desk.labels.drop("toy", "stable", None)


@pytest.mark.parametrize("generation", [0, 1, 3, 99])
def test_labels_that_moved_meanwhile_stay_where_they_are(desk, generation):
    desk.labels.move("toy", "candidate", 2, None)
    before = desk.kept()
    for change in (
        lambda: desk.labels.move("toy", "stable", 2, generation),
        lambda: desk.labels.move("toy", "trial", 2, generation),
        lambda: desk.labels.drop("toy", "candidate", generation),
    ):
        with pytest.raises(core.LabelsMoved) as caught:
            change()
        assert caught.value.extra == {"generation": 2}
    assert desk.kept() == before


def test_a_version_that_does_not_verify_is_refused_before_the_label_moves(desk):
    (desk.repository.bundle("toy", 2) / "weights").write_bytes(b"other")
    with pytest.raises(core.VersionUnfit, match="weights has other bytes"):
        desk.labels.move("toy", "stable", 2, None)
    assert desk.kept() == (1, {"stable": 1})
    assert desk.registry.model("toy").labelled().spec.version == 1


@pytest.mark.parametrize("part", ["opening", "step", "gates"])
def test_a_version_that_does_not_load_or_run_is_refused_before_the_label_moves(desk, part):
    opened = desk.loader._open_engine

    def fail(*arguments):
        raise RuntimeError("no kernel for this")

    def open_bad(bundle, spec):
        engine = opened(bundle, spec)
        if part == "opening":
            fail()
        setattr(engine, part, fail)
        return engine

    desk.loader._open_engine = open_bad
    with pytest.raises(core.VersionUnfit, match="no kernel for this"):
        desk.labels.move("toy", "stable", 2, None)
    assert desk.kept() == (1, {"stable": 1})
    assert desk.loader.problems() == [], "it is served nowhere"


def test_what_was_loaded_for_a_move_that_was_refused_is_let_go(desk):
    with pytest.raises(core.LabelsMoved):
        desk.labels.move("toy", "stable", 2, 99)
    assert desk.loader._prepared == {}


@pytest.mark.parametrize(
    ("move", "error"),
    [
        (("none", "stable", 1), core.ModelNotFound),
        (("../toy", "stable", 1), core.ModelNotFound),
        (("toy", "stable", 9), core.InvalidInput),
        (("toy", "Stable!", 2), core.InvalidInput),
    ],
)
def test_what_is_not_there_or_can_not_be_a_name_is_refused(desk, move, error):
    before = desk.kept()
    with pytest.raises(error):
        desk.labels.move(*move, None)
    assert desk.kept() == before


def test_no_label_and_no_model_are_not_found(desk):
    with pytest.raises(core.LabelNotFound):
        desk.labels.drop("toy", "candidate", None)
    for call in (lambda: desk.labels.labels("none"), lambda: desk.labels.drop("none", "candidate", None)):
        with pytest.raises(core.ModelNotFound):
            call()


def test_a_repository_that_can_not_be_written_says_so(desk, monkeypatch):
    def read_only(path, flags, *mode):
        if flags & os.O_RDWR:
            raise OSError(30, "Read-only file system", str(path))
        return really(path, flags, *mode)

    really = os.open
    monkeypatch.setattr("models.disk.os.open", read_only)
    with pytest.raises(core.RepositoryReadOnly, match="Read-only file system"):
        desk.labels.move("toy", "stable", 2, None)
    monkeypatch.undo()
    assert desk.kept() == (1, {"stable": 1})


def test_a_repository_that_is_held_or_damaged_is_unavailable(desk):
    with locked(desk.repository.root / "toy" / ".lock", 1.0), pytest.raises(core.RepositoryUnavailable):
        desk.labels.move("toy", "stable", 2, None)
    (desk.repository.root / "toy" / "labels.json").write_text("{")
    with pytest.raises(core.RepositoryUnavailable, match=r"labels\.json"):
        desk.labels.move("toy", "stable", 2, None)


def test_a_first_label_brings_a_model_to_service(tmp_path):
    desk = Desk(tmp_path / "models")
    desk.publish(label=None)
    desk.loader.refresh()
    assert desk.registry.models == {}
    RepositoryLabels(desk.repository, desk.loader).move("toy", "stable", 1, None)
    assert desk.registry.model("toy").labels == {"stable": 1}
    assert desk.loader.problems() == []
