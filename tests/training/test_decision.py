"""Published or rejected: a table of what a candidate may meet. And the contest, on steppers in closed form."""

import numpy as np
import pytest

from models.manifest import MODEL_KERAS, Feature, Manifest, Target
from models.repository import Repository
from tests.models.samples import publish_sample, sample_manifest, write_sample
from training.champion import Champion, champion_of, count_new, known_until, warm_network
from training.contest import Contest, contest
from training.decision import EXIT_CODES, Ended, decide
from training.evaluate import Track
from training.hindcast import hindcast
from training.job import FeatureColumn, Job, Source, TargetColumn
from training.paired import Paired
from training.refusals import TrainingError
from training.retrain import last_word
from training.sources import Series, newest_of
from training.tables import Retrain


def against(p, mean=0.1, n=200):
    return Contest(3, n, True, Paired(n, mean, 2.0, p), {})


@pytest.mark.parametrize(
    ("settings", "missed", "met", "label", "why"),
    [
        ({}, [], against(0.01), "candidate", "better than version 3 over 200 moments (p = 0.01)"),
        ({"publish": "stable"}, [], against(0.01), "stable", "better than version 3"),
        ({}, [], against(0.05), None, "where p < 0.05 is wanted"),
        ({"level": 0.2}, [], against(0.05), "candidate", "better"),
        ({}, [], against(0.9, -0.1), None, "worse than version 3"),
        ({}, [], against(1.0, 0.0, 0), None, "nothing is newer than what version 3 has learnt from"),
        ({}, [], against(float("nan")), None, "where p < 0.05 is wanted"),
        ({}, ["no skill"], against(0.001), None, "no skill"),
        ({}, ["no skill"], against(0.9, -0.1), None, "worse than version 3"),
        ({"publish": "candidate"}, [], None, "stable", "there is no champion yet"),
        ({}, ["no skill"], None, None, "no skill"),
    ],
)
def test_a_candidate_is_published_for_what_it_shows_and_rejected_for_what_it_lacks(settings, missed, met, label, why):
    found = decide(Retrain(**settings), missed, met)
    assert found.label == label
    assert why in found.text
    assert set(missed) <= set(found.reasons)


def test_a_candidate_that_beat_a_version_which_is_stable_no_more_does_not_appear(tmp_path):
    repository = Repository(tmp_path)
    for _ in range(2):
        publish_sample(repository)
    beaten = champion_of(repository, "sensor")
    repository.set_label("sensor", "stable", 1)
    for champion in (beaten, None):
        word = last_word(repository, "sensor", champion, "candidate", replace=False)
        with repository.stage("sensor") as staging:
            write_sample(staging)
            with pytest.raises(TrainingError, match="the stable version changed"):
                repository.publish(staging, sample_manifest(), "candidate", last_word=word)
    assert repository.versions("sensor") == [1, 2]


def test_a_candidate_that_was_put_on_trial_meanwhile_is_not_pushed_aside(tmp_path):
    repository = Repository(tmp_path)
    for _ in range(2):
        publish_sample(repository)
    champion = champion_of(repository, "sensor")
    repository.set_label("sensor", "candidate", 1)
    for label, replace, appears in (("candidate", False, False), ("candidate", True, True), ("stable", False, True)):
        word = last_word(repository, "sensor", champion, label, replace=replace)
        repository.set_label("sensor", "stable", 2)
        repository.set_label("sensor", "candidate", 1)
        with repository.stage("sensor") as staging:
            write_sample(staging)
            if appears:
                repository.publish(staging, sample_manifest(), label, last_word=word)
                continue
            with pytest.raises(TrainingError, match="version 1 is on trial by now"):
                repository.publish(staging, sample_manifest(), label, last_word=word)
    assert repository.versions("sensor") == [1, 2, 3, 4]


def test_a_champions_network_that_does_not_load_any_more_is_a_start_from_scratch(fading, tmp_path):
    job, _ = fading
    champion = Champion(3, tmp_path, manifest(trained_until=0.0, job=job.model_dump(mode="json")))
    (tmp_path / MODEL_KERAS).parent.mkdir()
    (tmp_path / MODEL_KERAS).write_bytes(b"of a Keras that was")
    network, why = warm_network(champion, job, 1_000.0)
    assert network is None
    assert "is not a Keras model that can be loaded" in why


def test_every_way_to_end_has_an_exit_code_of_its_own():
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert (Ended("rejected", "", {}).exit_code, Ended("locked", "", {}).exit_code) == (3, 5)


class Guess:
    """A bundle without memory: it expects `share` of the last value. State: one float that stays."""

    def __init__(self, share):
        self.share = np.float32(share)

    def step(self, x, state):
        return (x * self.share)[:, :, None], state

    def gates(self, x, state):
        return {}


def manifest(**changes) -> Manifest:
    return sample_manifest(
        "walk",
        features=(Feature(name="level"),),
        targets=(Target(name="level", scale=1.0),),
        initial_state=(0.0,),
        interval_s=60.0,
        **changes,
    )


@pytest.fixture
def fading():
    """A job and two series that halve at each step, but for noise: who expects half of the last value is right."""
    random, made = np.random.default_rng(2), []
    for key in ("a", "b"):
        values = np.zeros(300, np.float32)
        for t in range(1, 300):
            values[t] = 0.5 * values[t - 1] + random.normal()
        made.append(Series(key, 60.0 * np.arange(300.0), values[:, None]))
    columns = {"features": (FeatureColumn(name="level"),), "targets": (TargetColumn(name="level"),)}
    return Job(name="walk", source=Source(path="none.csv"), interval_s=60.0, **columns), made


def met(fading, candidate, champion, until):
    job, series = fading
    past = hindcast(Guess(candidate), manifest(), [each.values for each in series], [200, 200], 1)
    tracks = [Track(each, 200, 200, found) for each, found in zip(series, past, strict=True)]
    return contest(job, tracks, 3, manifest(trained_until=until), Guess(champion))


def test_the_better_of_two_is_found_and_its_losses_are_told(fading):
    found = met(fading, 0.5, 0.9, 60.0 * 199)
    assert (found.rows, found.paired.n, found.untouched) == (200, 100, True)
    assert found.paired.p < 0.05
    observed = np.concatenate([each.values[200:, 0] for each in fading[1]]).astype(float)
    before = np.concatenate([each.values[199:-1, 0] for each in fading[1]]).astype(float)
    level = found.targets["level"]
    assert level["champion"] == pytest.approx(np.mean((observed - 0.9 * before) ** 2), rel=1e-5)
    assert level["candidate"] == pytest.approx(np.mean((observed - 0.5 * before) ** 2), rel=1e-5)
    assert found.paired.mean == pytest.approx((level["champion"] - level["candidate"]) / level["last_value"])
    assert met(fading, 0.9, 0.5, 60.0 * 199).paired.p > 0.95


def test_only_what_is_newer_than_the_champions_training_judges(fading):
    assert met(fading, 0.5, 0.9, 60.0 * 249).rows == 100
    nothing = met(fading, 0.5, 0.9, 60.0 * 299)
    assert (nothing.rows, nothing.paired.p) == (0, 1.0)


def test_what_the_candidate_has_learnt_from_another_series_judges_neither(fading):
    """A series that ended early would be judged on moments of which the candidate knows the other series."""
    job, (one, other) = fading
    series = [one, Series(other.id, other.times - 60.0 * 100, other.values)]  # its newest is where `one` is cut
    past = hindcast(Guess(0.5), manifest(), [each.values for each in series], [200, 200], 1)
    tracks = [Track(each, 200, 200, found) for each, found in zip(series, past, strict=True)]
    found = contest(job, tracks, 3, manifest(trained_until=0.0), Guess(0.9))
    assert (found.rows, found.paired.n) == (100, 100)


@pytest.mark.parametrize("until", [60.0 * 199, 4e11])
def test_a_series_by_a_clock_that_is_ahead_does_not_hide_the_others_from_the_contest(fading, until):
    """Milliseconds taken for seconds, say; `until`: also where the champion has learnt from such a one."""
    job, (one, other) = fading
    series = [one, Series(other.id, other.times + 4e11, other.values)]
    past = hindcast(Guess(0.5), manifest(), [each.values for each in series], [200, 200], 1)
    tracks = [Track(each, 200, 200, found) for each, found in zip(series, past, strict=True)]
    found = contest(job, tracks, 3, manifest(trained_until=until), Guess(0.9))
    assert (found.rows, found.paired.n) == (100, 100)


def test_series_that_are_all_yet_to_come_are_compared_as_any_others(fading):
    """A simulation's, whose times nobody's clock has seen."""
    job, made = fading
    series = [Series(each.id, each.times + 4e11, each.values) for each in made]
    past = hindcast(Guess(0.5), manifest(), [each.values for each in series], [200, 200], 1)
    tracks = [Track(each, 200, 200, found) for each, found in zip(series, past, strict=True)]
    found = contest(job, tracks, 3, manifest(trained_until=4e11 + 60.0 * 249), Guess(0.9))
    assert (found.rows, found.paired.n) == (100, 50)


def test_what_a_version_has_learnt_until_is_no_time_to_come():
    past, ahead = Series("a", np.arange(3.0), np.zeros((3, 1))), Series("b", 4e11 + np.arange(3.0), np.zeros((3, 1)))
    assert newest_of([past, ahead]) == newest_of([past]) == 2.0
    assert newest_of([ahead]) == 4e11 + 2


def test_series_without_an_interval_that_move_together_count_once_a_moment(fading):
    job, (one, _) = fading
    job = job.model_copy(update={"interval_s": None})
    random = np.random.default_rng(4)
    series = [Series(str(i), one.times + random.uniform(0, 30), one.values) for i in range(20)]
    past = hindcast(Guess(0.5), manifest(), [each.values for each in series], [200] * 20, 1)
    tracks = [Track(each, 200, 200, found) for each, found in zip(series, past, strict=True)]
    found = contest(job, tracks, 3, manifest(trained_until=0.0), Guess(0.9))
    assert found.rows == 2_000
    assert found.paired.n <= 101


def test_a_champion_that_has_learnt_from_the_holdout_is_not_trained_on(fading, tmp_path):
    job, _ = fading
    made = manifest(trained_until=1_000.0, job=job.model_dump(mode="json"))
    champion = Champion(3, tmp_path, made)
    network, why = warm_network(champion, job, 999.0)
    assert network is None
    assert why == "version 3 has learnt from part of the holdout"
    assert "older release" in warm_network(champion, job, 1_000.0)[1]  # the next thing that is asked


def test_what_a_clock_ahead_made_known_does_not_hide_all_that_is_new(tmp_path):
    repository = Repository(tmp_path)
    for until in (1_000.0, 2_000.0, 1e11):
        with repository.stage("sensor") as staging:
            write_sample(staging)
            repository.publish(staging, sample_manifest(data_until=until))
    assert known_until(repository, "sensor") == 2_000.0


def test_what_is_yet_to_come_is_not_new_at_every_run():
    past, ahead = Series("a", np.arange(9.0), np.zeros((9, 1))), Series("b", 4e11 + np.arange(5.0), np.zeros((5, 1)))
    assert count_new([past, ahead], None) == 14
    assert count_new([past, ahead], 5.0) == 3


def test_that_a_champion_does_not_tell_what_it_learnt_from_is_said(fading):
    found = met(fading, 0.5, 0.9, None)
    assert (found.rows, found.untouched) == (200, False)
