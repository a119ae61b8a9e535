"""Versions and labels: what is published, what is refused, what is found damaged."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.disk import locked
from models.errors import (
    BundleDamaged,
    DeleteRefused,
    InvalidName,
    LabelsDamaged,
    PublishRefused,
    RepositoryBusy,
    UnknownLabel,
    UnknownModel,
    UnknownVersion,
)
from models.labels import Labels
from models.manifest import Feature, Target, read_manifest
from models.repository import Repository
from tests.models.samples import publish_sample, sample_manifest, write_sample


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "published")


def leftovers(repository, name="sensor"):
    return list((repository.root / name).glob(".staging-*"))


def test_an_absent_repository_is_empty_and_is_not_created_by_reading(repository):
    assert repository.names() == []
    assert repository.versions("sensor") == []
    assert repository.labels("sensor") == Labels(generation=0, labels={})
    with pytest.raises(UnknownModel, match="train or export"):
        repository.resolve("sensor")
    assert not repository.root.exists()


def test_a_published_bundle_is_the_next_version_and_carries_the_label(repository):
    assert publish_sample(repository) == 1
    assert publish_sample(repository) == 2
    assert repository.names() == ["sensor"]
    assert repository.versions("sensor") == [1, 2]
    assert repository.resolve("sensor") == 2
    assert json.loads((repository.root / "sensor" / "labels.json").read_bytes()) == {
        "format": 1,
        "generation": 2,
        "labels": {"stable": 2},
    }
    assert leftovers(repository) == []


def test_versions_are_ordered_as_numbers(repository):
    for _ in range(11):
        publish_sample(repository, label=None)
    assert repository.versions("sensor") == list(range(1, 12))


def test_a_published_manifest_lists_every_other_file_with_its_digest(repository):
    publish_sample(repository)
    manifest = repository.verify("sensor", 1)
    assert set(manifest.files) == {"saved_model.pb", "variables/variables.index"}
    assert manifest == read_manifest(repository.bundle("sensor", 1))


def test_publishing_without_a_label_moves_none(repository):
    publish_sample(repository)
    assert publish_sample(repository, label=None) == 2
    assert repository.labels("sensor") == Labels(generation=1, labels={"stable": 1})


def test_a_failed_staging_leaves_nothing(repository):
    def staged_and_failing():
        with repository.stage("sensor") as staging:
            write_sample(staging)
            raise KeyError

    with pytest.raises(KeyError):
        staged_and_failing()
    assert leftovers(repository) == []
    assert repository.versions("sensor") == []
    assert repository.names() == []


def test_staging_leaves_the_folders_of_living_publishers_alone(repository):
    with repository.stage("sensor") as first, repository.stage("sensor") as second:
        write_sample(first)
        write_sample(second)
        assert repository.publish(second, sample_manifest()) == 1
        assert repository.publish(first, sample_manifest()) == 2


def test_a_folder_that_was_not_staged_for_the_model_is_refused(repository, tmp_path):
    write_sample(tmp_path)
    with pytest.raises(PublishRefused, match="stage"):
        repository.publish(tmp_path, sample_manifest())
    with repository.stage("finance") as staging, pytest.raises(PublishRefused, match="stage"):
        repository.publish(staging, sample_manifest("sensor"))


@pytest.mark.parametrize(
    "change",
    [
        {"features": (Feature(name="temperature", unit="K"),)},
        {"features": (Feature(name="temperature", unit="degC"), Feature(name="pressure", unit="hPa"))},
        {"targets": (Target(name="pressure", unit="hPa", scale=1.0),)},
        {"interval_s": 60.0},
        {"interval_s": None},
    ],
)
def test_another_contract_under_the_same_name_is_refused_and_named(repository, change):
    publish_sample(repository)
    with pytest.raises(PublishRefused, match=f"{next(iter(change))} were .* would be .* another name"):
        publish_sample(repository, **change)
    assert repository.versions("sensor") == [1]
    assert repository.labels("sensor").generation == 1
    assert leftovers(repository) == []


def test_other_weights_limits_and_scales_are_the_same_contract(repository):
    publish_sample(repository)
    limited = (Feature(name="temperature", unit="degC", minimum=-90.0),)
    rescaled = (Target(name="temperature", unit="degC", scale=9.0),)
    assert publish_sample(repository, fingerprint="b" * 64, features=limited, targets=rescaled) == 2


def test_a_damaged_version_does_not_block_its_replacement(repository):
    publish_sample(repository)
    (repository.bundle("sensor", 1) / "manifest.json").write_bytes(b"{")
    assert publish_sample(repository) == 2


def test_a_staged_link_is_refused(repository, tmp_path):
    with repository.stage("sensor") as staging:
        write_sample(staging)
        (staging / "variables" / "link").symlink_to(tmp_path)
        with pytest.raises(PublishRefused, match="variables/link"):
            repository.publish(staging, sample_manifest())


def _flip(bundle):
    (bundle / "variables" / "variables.index").write_bytes(b"weightz")


def _truncate(bundle):
    (bundle / "saved_model.pb").write_bytes(b"")


def _lose(bundle):
    (bundle / "saved_model.pb").unlink()


def _add(bundle):
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "x.pyc").write_bytes(b"")


def _link_in_place(bundle):
    (bundle / "saved_model.pb").rename(bundle.parent / "elsewhere.pb")
    (bundle / "saved_model.pb").symlink_to(bundle.parent / "elsewhere.pb")


def _link_a_folder(bundle):
    shutil.move(bundle / "variables", bundle.parent / "elsewhere")
    (bundle / "variables").symlink_to(bundle.parent / "elsewhere")


def _fifo(bundle):
    os.mkfifo(bundle / "assets" / "pipe")


def _escape(bundle):
    (bundle.parent / "outside").write_bytes(b"graph")
    text = (bundle / "manifest.json").read_text().replace('"saved_model.pb"', '"../outside"')
    (bundle / "manifest.json").write_text(text)


def _another_name(bundle):
    text = (bundle / "manifest.json").read_text().replace('"name": "sensor"', '"name": "finance"')
    (bundle / "manifest.json").write_text(text)


def _no_manifest(bundle):
    (bundle / "manifest.json").unlink()


def _newer_format(bundle):
    text = (bundle / "manifest.json").read_text().replace('"format": 1', '"format": 2')
    (bundle / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_flip, "variables/variables.index has other bytes"),
        (_truncate, "saved_model.pb has other bytes"),
        (_lose, "saved_model.pb is missing"),
        (_add, "__pycache__/x.pyc is foreign"),
        (_link_in_place, "saved_model.pb is a link"),
        (_link_a_folder, "variables is a link"),
        (_fifo, "assets/pipe is a link or no file"),
        (_escape, "outside is missing"),
        (_another_name, "is of model 'finance'"),
        (_no_manifest, "manifest.json can't be read"),
        (_newer_format, "manifest.json can't be read"),
    ],
)
def test_a_damaged_bundle_is_found_and_named(repository, damage, named):
    publish_sample(repository)
    repository.verify("sensor", 1)
    damage(repository.bundle("sensor", 1))
    with pytest.raises(BundleDamaged) as caught:
        repository.verify("sensor", 1)
    assert named in str(caught.value)
    assert "publish the model again" in str(caught.value)


def test_a_label_never_moves_to_a_damaged_version(repository):
    publish_sample(repository)
    publish_sample(repository)
    _flip(repository.bundle("sensor", 1))
    with pytest.raises(BundleDamaged):
        repository.set_label("sensor", "stable", 1)
    assert repository.resolve("sensor") == 2


def test_each_change_of_a_label_raises_the_generation_by_one_and_no_change_does_not(repository):
    publish_sample(repository)
    publish_sample(repository, label="candidate")
    assert repository.labels("sensor").generation == 2
    assert repository.set_label("sensor", "candidate", 2).generation == 2
    assert repository.set_label("sensor", "stable", 2) == Labels(generation=3, labels={"candidate": 2, "stable": 2})
    assert repository.drop_label("sensor", "candidate") == Labels(generation=4, labels={"stable": 2})
    assert repository.labels("sensor").generation == 4


def test_unknown_versions_and_labels_are_named_with_what_there_is(repository):
    publish_sample(repository)
    with pytest.raises(UnknownVersion, match="choose one of: 1"):
        repository.set_label("sensor", "stable", 7)
    with pytest.raises(UnknownVersion):
        repository.bundle("sensor", 7)
    with pytest.raises(UnknownLabel, match="stable"):
        repository.resolve("sensor", "candidate")
    with pytest.raises(UnknownLabel):
        repository.drop_label("sensor", "candidate")
    with pytest.raises(UnknownModel, match="sensor"):
        repository.bundle("finance", 1)


@pytest.mark.parametrize("name", ["", "..", "../other", "a/b", "Sensor", "-x", "a" * 65, "é"])
def test_a_name_that_is_no_name_is_refused(repository, name):
    for call in (repository.versions, repository.labels, repository.resolve):
        with pytest.raises(InvalidName):
            call(name)
    with pytest.raises(InvalidName), repository.stage(name):
        pass
    publish_sample(repository)
    with pytest.raises(InvalidName):
        repository.set_label("sensor", name, 1)
    with pytest.raises(InvalidName):
        publish_sample(repository, label=name)


def test_foreign_entries_in_the_repository_are_no_models_and_no_versions(repository):
    publish_sample(repository)
    model = repository.root / "sensor"
    for name in ("0", "01", "x", "-1", "²"):
        (model / name).mkdir()
    (model / "9").write_bytes(b"a file")
    (model / "8").symlink_to(model / "1")
    (repository.root / "lost+found").mkdir()
    (repository.root / "empty").mkdir()
    (repository.root / "a-file").write_bytes(b"")
    assert repository.names() == ["sensor"]
    assert repository.versions("sensor") == [1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": 2, "generation": 1, "labels": {}}',
        b'{"labels": {"a": 0}}',
        b'{"generation": 18446744073709551616, "labels": {"stable": 1}}',  # more than a record can keep
    ],
)
def test_damaged_labels_are_an_error_and_not_the_absence_of_labels(repository, content):
    publish_sample(repository)
    (repository.root / "sensor" / "labels.json").write_bytes(content)
    with pytest.raises(LabelsDamaged, match=r"labels\.json"):
        repository.resolve("sensor")
    with pytest.raises(LabelsDamaged):
        publish_sample(repository)
    assert repository.versions("sensor") == [1]


def test_a_labelled_version_and_the_newest_are_never_deleted(repository):
    for _ in range(3):
        publish_sample(repository, label=None)
    repository.set_label("sensor", "stable", 1)
    with pytest.raises(DeleteRefused, match="stable"):
        repository.delete("sensor", 1)
    with pytest.raises(DeleteRefused, match="newest"):
        repository.delete("sensor", 3)
    with pytest.raises(DeleteRefused):
        repository.drop_label("sensor", "stable")
    repository.delete("sensor", 2)
    assert repository.versions("sensor") == [1, 3]
    assert leftovers(repository) == []
    assert publish_sample(repository) == 4


def test_two_publishers_at_once_get_different_versions_and_one_generation_each(repository):
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: publish_sample(repository), range(24)))
    assert sorted(versions) == list(range(1, 25))
    assert repository.labels("sensor").generation == 24
    for version in versions:
        repository.verify("sensor", version)


def test_a_lock_that_is_not_given_back_is_an_error_and_not_a_hang(tmp_path):
    publish_sample(Repository(tmp_path))
    impatient = Repository(tmp_path, lock_wait_s=0.05)
    with locked(tmp_path / "sensor" / ".lock", 1.0), pytest.raises(RepositoryBusy, match=r"\.lock"):
        publish_sample(impatient)
    assert publish_sample(impatient) == 2
