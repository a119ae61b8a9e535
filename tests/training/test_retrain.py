"""Training again: what is published, what is rejected and why, and what is left alone."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from models.disk import try_lock
from models.manifest import MODEL_KERAS
from models.repository import Repository
from service.core.registry import Registry
from service.engines import open_engine
from service.loader import Loader
from tests.training.moments import Moments
from training.__main__ import main
from training.retention import finish_publishing

JOB = """
name = "tide"
interval_s = 3600
horizon = 3
quantiles = [0.05, 0.5, 0.95]
[source]
path = "tide.csv"
[[features]]
name = "level"
unit = "m"
[[targets]]
name = "level"
[network]
units = 8
depth = 1
[fit]
epochs = {epochs}
streams = 8
chunk = 24
learning_rate = {rate}
[retrain]
holdout = 200
keep = 1
minimum_new = 48
start = "{start}"
{window}
"""


def tide(first, count, period):
    """Rows of a CSV: a wave of `period` hours with a little noise, from hour `first` on."""
    t = np.arange(first, first + count)
    noise = np.random.default_rng(first).normal(0, 0.02, count)
    values = 2 * np.sin(2 * np.pi * t / period) + noise
    return "".join(f"{1.6e9 + 3600 * at:.0f},{value:.4f}\n" for at, value in zip(t, values, strict=True))


class Shore:
    """A job whose series grows, and the commands on it."""

    def __init__(self, folder):
        self.folder, self.repository, self.rows = folder, Repository(folder / "models"), 0
        (folder / "tide.csv").write_text("time,level\n")
        self.says()

    def says(self, start="warm", epochs=12, rate=8e-3, window=""):
        (self.folder / "tide.toml").write_text(JOB.format(start=start, epochs=epochs, rate=rate, window=window))

    def grow(self, count, period):
        with (self.folder / "tide.csv").open("a") as file:
            file.write(tide(self.rows, count, period))
        self.rows += count

    def retrain(self, *options):
        arguments = ["retrain", str(self.folder / "tide.toml"), "--models-dir", str(self.folder / "models")]
        result = CliRunner().invoke(
            main, [*arguments, "--cache", str(self.folder / "cache"), "--json", *options], catch_exceptions=False
        )
        lines = result.stdout.splitlines()
        assert len(lines) == 1, result.output
        found = json.loads(lines[0])
        assert found["exit"] == result.exit_code
        return found, result.stderr


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A model's life, told by the summaries of its runs."""
    shore, told = Shore(tmp_path_factory.mktemp("shore")), {}
    told["moments"] = {
        how: Moments(shore.folder / "models", tmp_path_factory.mktemp(how)) for how in ("published", "rejected")
    }
    shore.grow(1_500, 24)
    told["first"] = shore.retrain()
    told["again"] = shore.retrain()
    shore.grow(47, 9)
    told["too few"] = shore.retrain()
    shore.grow(1_200, 9)
    with told["moments"]["published"].of():
        told["changed"] = shore.retrain()
    shore.grow(100, 9)
    told["on trial"] = shore.retrain()
    shore.repository.set_label("tide", "stable", 2)
    shore.repository.drop_label("tide", "candidate")
    told["labels"] = shore.repository.labels("tide").labels
    shore.says(start="scratch", epochs=1, rate=1e-6, window='window = "sliding"\nlength = 1000')
    with told["moments"]["rejected"].of():
        told["worse"] = shore.retrain()
    told["after a rejection"] = shore.retrain()
    return shore, told


def test_the_first_version_is_published_as_stable(story):
    found, _ = story[1]["first"]
    assert (found["outcome"], found["exit"], found["version"], found["label"]) == ("published", 0, 1, "stable")
    assert (found["champion"], found["start"]) == (None, "scratch")
    assert found["rows"] | {"late": 0, "duplicates": 0} == {
        "all": 1_500, "new": 1_500, "late": 0, "duplicates": 0, "gaps": 0, "used": 1_500, "series": 1,
    }  # fmt: skip


def test_with_nothing_new_or_too_little_nothing_is_done(story):
    for when, new in (("again", 0), ("too few", 47)):
        found, _ = story[1][when]
        assert (found["outcome"], found["exit"], found["rows"]["new"]) == ("nothing_new", 4, new)
        assert found["text"] == f"{new} new observations, 48 are wanted for a run"


def test_what_beats_the_champion_on_untouched_data_becomes_the_candidate(story):
    shore, told = story
    found, said = told["changed"]
    assert (found["outcome"], found["version"], found["label"]) == ("published", 2, "candidate")
    assert (found["champion"], found["start"]) == (1, "warm")
    contest = found["contest"]
    assert contest["untouched"] is True
    assert contest["rows"] == contest["moments"] == 200
    assert contest["p"] < 0.05
    level = contest["targets"]["level"]
    assert level["candidate"] < level["champion"]
    assert "From the weights of version 1." in said
    manifest = shore.repository.verify("tide", 2)
    assert MODEL_KERAS in manifest.files
    assert manifest.data_until == 1.6e9 + 3600 * (1_500 + 47 + 1_200 - 1)
    assert manifest.trained_until == manifest.data_until - 200 * 3600
    assert manifest.scores["contest"] == contest
    page = (shore.repository.bundle("tide", 2) / "report" / "report.html").read_text()
    assert "Published as candidate" in page
    assert "200 observations that neither has learnt from" in page


def test_a_window_takes_all_there_is_or_slides_along_with_the_newest(story):
    """Before the holdout, which comes on top."""
    _, told = story
    for when, used in (("changed", 1_500 + 47 + 1_200), ("worse", 1_000 + 200)):
        rows = told[when][0]["rows"]
        assert rows["used"] == used
        assert rows["all"] >= 1_500 + 47 + 1_200


def test_a_candidate_on_trial_is_not_pushed_aside(story):
    found, _ = story[1]["on trial"]
    assert (found["exit"], found["text"]) == (4, "version 2 is still on trial as candidate")


def test_what_does_not_beat_the_champion_is_rejected_with_a_report_that_says_why(story):
    shore, told = story
    found, said = told["worse"]
    assert (found["outcome"], found["exit"], found["champion"]) == ("rejected", 3, 2)
    assert found["start"] == "scratch"
    assert found["reasons"][0].startswith("worse than version 2 over 200 moments (p = 1")
    assert "rejected: worse than version 2" in said
    page = (shore.folder / "models" / "tide.refused" / "report.html").read_text()
    assert found["report"] == str(shore.folder / "models" / "tide.refused" / "report.html")
    assert "<h2>Rejected</h2>" in page
    assert "Worse than version 2" in page
    assert shore.repository.versions("tide") == [1, 2]
    assert shore.repository.labels("tide").labels == told["labels"]
    assert list((shore.folder / "models" / "tide").glob(".staging-*")) == []


def test_what_was_rejected_is_not_tried_again_on_the_same_data(story):
    found, _ = story[1]["after a rejection"]
    assert (found["outcome"], found["rows"]["new"]) == ("nothing_new", 0)


def served_from(root):
    """What a worker serves that begins with this repository: its labels' versions, loaded and run once."""
    registry = Registry()
    loader = Loader(Repository(root), registry, lambda bundle, spec: open_engine(bundle, spec, "litert"))
    loader.refresh()
    assert loader.problems() == []
    model = registry.model("tide")
    assert set(model.versions) == set(model.labels.values())
    return dict(model.labels)


def test_a_whole_retrain_killed_at_any_moment_leaves_a_repository_that_is_valid_and_served(story):
    """The real thing: gathered, fitted, exported, judged, published and labelled; see `moments`."""
    _, told = story
    moments, outcomes = told["moments"]["published"], []
    assert {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"} <= set(moments.calls)
    assert len(moments.copies) > 20
    for root in moments.copies:
        repository = Repository(root)
        for version in repository.versions("tide"):
            repository.verify("tide", version)
        outcomes.append((repository.versions("tide"), served_from(root)))
        finish_publishing(repository, "tide")  # as the next run does
        labels = {"stable": 1} | ({"candidate": 2} if 2 in repository.versions("tide") else {})
        assert repository.labels("tide").labels == labels == served_from(root)
        with repository.stage("tide") as staging:
            assert list((root / "tide").glob(".staging-*")) == [staging.parent], "a killed run's is cleared"
    in_order = [each for n, each in enumerate(outcomes) if n == 0 or each != outcomes[n - 1]]
    assert in_order == [([1], {"stable": 1}), ([1, 2], {"stable": 1}), ([1, 2], {"stable": 1, "candidate": 2})]


def test_a_rejection_killed_at_any_moment_changes_nothing_that_is_served(story):
    _, told = story
    reports = []
    for root in told["moments"]["rejected"].copies:
        assert Repository(root).versions("tide") == [1, 2]
        assert served_from(root) == told["labels"]
        page = root / "tide.refused" / "report.html"
        reports.append(page.exists() and "</html>" in page.read_text())
    assert reports == sorted(reports)
    assert set(reports) == {False, True}


def test_a_second_run_of_a_model_is_told_of_the_first_and_a_dead_one_holds_nothing(story):
    shore, _ = story
    held = try_lock(shore.folder / "models" / "tide" / ".retrain.lock", create=False)
    found, _ = shore.retrain()
    assert (found["outcome"], found["exit"]) == ("locked", 5)
    os.close(held)
    assert shore.retrain()[0]["outcome"] == "nothing_new"


def test_too_short_a_series_is_told_with_the_holdout(tmp_path):
    shore = Shore(tmp_path)
    shore.grow(150, 24)
    found, _ = shore.retrain()
    assert found["exit"] == 1
    assert "of 150 observations retrain.holdout takes 200" in found["text"]


def test_an_error_is_a_summary_too(tmp_path):
    shore = Shore(tmp_path)
    found, said = shore.retrain()
    assert (found["outcome"], found["exit"]) == ("error", 1)
    assert "has no rows" in found["text"]
    assert found["text"] in said
