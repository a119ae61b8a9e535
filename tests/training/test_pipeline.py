"""From a CSV file to a published version and back: real training, small enough to wait for."""

import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers
from rich.console import Console

from models.disk import locked
from models.errors import PublishRefused
from models.manifest import STEP_TFLITE
from models.repository import Repository
from tests.serving import wait_until
from training.__main__ import main
from training.job import load_job
from training.judging import reevaluate
from training.pipeline import contract_of, train
from training.refusals import TrainingError
from training.userfile import Description, publish_model
from training.windows import TooShort

JOB = """
name = "{name}"
title = "A test"
interval_s = 3600
horizon = 6
season = 24
quantiles = [0.05, 0.5, 0.95]
[source]
path = "{name}.csv"
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
"""


def write_job(folder: Path, name: str, *, noise: float, wave: float, epochs: int = 12, extra: str = "") -> Path:
    """A job file and its CSV: a wave of 24 hours plus a random walk with steps of `noise`."""
    rng = np.random.default_rng(4)
    n = 2_000
    values = wave * np.sin(2 * np.pi * np.arange(n) / 24) + np.cumsum(rng.normal(0, noise, n))
    rows = [f"{1.6e9 + 3600 * t:.0f},{v:.4f}" for t, v in enumerate(values)]
    (folder / f"{name}.csv").write_text("\n".join(["time,level", *rows]) + "\n")
    path = folder / f"{name}.toml"
    path.write_text(JOB.format(name=name, epochs=epochs) + extra)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A repository with one trained version of `wave`, what was said, and the job."""
    folder = tmp_path_factory.mktemp("jobs")
    job = load_job(write_job(folder, "wave", noise=0.02, wave=2.0))
    repository, heard = Repository(folder / "models"), io.StringIO()
    done = train(job, repository, Console(file=heard, width=120), quick=False, allow_no_skill=False)
    return repository, done, heard.getvalue(), job


def test_training_publishes_a_whole_judged_version(trained):
    repository, done, heard, _ = trained
    assert repository.resolve("wave") == done.version == 1
    manifest = repository.verify("wave", 1)
    assert {STEP_TFLITE, "report/report.html", "report/training.png", "saved_model.pb"} <= set(manifest.files)
    assert manifest.scores["verdict"]["skill"] is True
    assert manifest.scores["targets"]["level"]["one_step"]["model"]["rmse"] < 0.2
    assert len(manifest.residuals.quantiles) == 6
    assert manifest.job["name"] == "wave"
    assert len(manifest.data_digest) == 64
    assert manifest.targets[0].scale == pytest.approx(1.4, abs=0.3)
    assert done.report.exists()
    assert "better than the last value" in heard
    for stage in ("load", "fit", "export", "evaluate", "report", "publish"):
        assert re.search(rf"{stage} \d+\.\d s", heard), stage


def test_what_was_published_scores_the_same_when_judged_again(trained, monkeypatch):
    repository, _, _, job = trained
    data = job.source.file
    number, found = reevaluate(repository, "wave", Console(file=io.StringIO()), data=data)
    assert number == 1
    published = repository.verify("wave", 1).scores
    assert found.scores["targets"]["level"]["one_step"] == published["targets"]["level"]["one_step"]
    with pytest.raises(TrainingError, match=r"wave\.csv.*--data FILE"):
        reevaluate(repository, "wave", Console(file=io.StringIO()))
    monkeypatch.chdir(data.parent)
    _, again = reevaluate(repository, "wave", Console(file=io.StringIO()), report=data.parent / "again")
    assert again.scores == found.scores
    assert (data.parent / "again" / "report.html").exists()
    assert repository.verify("wave", 1).scores == published  # the bundle is as it was


def test_a_version_is_judged_on_the_data_beside_its_job_file_from_any_folder(trained, tmp_path, monkeypatch):
    repository, _, _, job = trained
    monkeypatch.chdir(tmp_path)
    arguments = ["--models-dir", str(repository.root)]
    by_name = CliRunner().invoke(main, ["evaluate", "wave", *arguments])
    assert by_name.exit_code == 1
    assert "evaluate JOB.toml" in by_name.output
    by_job = CliRunner().invoke(main, ["evaluate", str(job.source.file.with_suffix(".toml")), *arguments])
    assert by_job.exit_code == 0, by_job.output
    assert "wave version 1: " in by_job.output
    assert "other data than" not in by_job.output


def test_other_data_than_it_was_trained_on_is_said_and_its_columns_may_have_other_names(trained, tmp_path):
    repository, _, _, job = trained
    lines = job.source.file.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["when,level,pump", *(f"{line},p1" for line in lines[1:])]) + "\n")
    arguments = ["evaluate", "wave", "--models-dir", str(repository.root)]
    same = CliRunner().invoke(main, [*arguments, "--data", str(job.source.file)])
    assert same.exit_code == 0, same.output
    assert "other data than" not in same.output
    named = CliRunner().invoke(main, [*arguments, "--data", str(other), "--time", "when", "--series", "pump"])
    assert named.exit_code == 0, named.output
    assert "This is other data than wave version 1 was trained on." in named.output  # its series has another id
    alone = CliRunner().invoke(main, [*arguments, "--time", "when"])
    assert alone.exit_code == 1
    assert "--data" in alone.output


def test_a_job_that_changes_what_clients_rely_on_is_refused_before_its_training(trained):
    repository, _, _, job = trained
    other = job.model_copy(update={"features": (job.features[0].model_copy(update={"unit": "cm"}),)})
    heard = io.StringIO()
    with pytest.raises(PublishRefused, match=r"(?s)'m'.*'cm'.*Use another name"):
        train(other, repository, Console(file=heard, width=120), quick=False, allow_no_skill=False)
    assert "fit" not in heard.getvalue()
    repository.refuse_other_contract(job.name, contract_of(job))


def test_a_horizon_too_long_for_the_data_is_refused_before_the_training(trained):
    repository, _, _, job = trained
    heard = io.StringIO()
    with pytest.raises(TooShort, match="look 190 steps ahead"):
        train(
            job.model_copy(update={"horizon": 190}), repository, Console(file=heard), quick=False, allow_no_skill=False
        )
    assert "fit" not in heard.getvalue()


def test_no_skill_and_missed_gates_fail_the_command_loudly_and_the_report_is_kept(tmp_path):
    path = write_job(tmp_path, "null", noise=0.1, wave=0.0, epochs=2, extra="[gates]\nrmse = { level = 0.0001 }\n")
    result = CliRunner().invoke(main, ["train", str(path), "--models-dir", str(tmp_path / "models")])
    kept = tmp_path / "models" / "null.refused" / "report.html"
    assert result.exit_code == 1
    assert "not published: level: no skill over the last value" in result.output
    assert "0.0001 wanted" in result.output
    assert str(kept) in result.output
    assert "no skill over the last value" in kept.read_text()
    assert Repository(tmp_path / "models").names() == []
    assert [p.name for p in (tmp_path / "models" / "null").iterdir() if p.is_dir()] == []


def test_no_skill_is_published_when_asked_and_stays_on_record(tmp_path):
    job = load_job(write_job(tmp_path, "null", noise=0.1, wave=0.0, epochs=2))
    repository, heard = Repository(tmp_path / "models"), io.StringIO()
    done = train(job, repository, Console(file=heard, width=120), quick=False, allow_no_skill=True)
    assert done.version == 1
    assert repository.verify("null", 1).scores["verdict"]["skill"] is False
    assert "no skill over the last value" in heard.getvalue()


def test_an_interrupted_training_leaves_nothing_behind(tmp_path, begin):
    path = write_job(tmp_path, "cut", noise=0.02, wave=2.0, epochs=1)
    models = tmp_path / "models"
    command = [sys.executable, "-m", "training", "train", str(path), "--models-dir", str(models), "--allow-no-skill"]
    process = begin(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def staged():
        assert process.poll() is None, process.communicate()[1]
        return list(models.glob("cut/.staging-*/bundle"))

    wait_until(staged, 400, "a staged bundle")
    with locked(models / "cut" / ".lock", 30):  # it can't publish before it has heard, however slow we are
        assert Repository(models).names() == []
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=400)
    assert process.returncode == 130, err
    assert "nothing was published" in err
    assert "Traceback" not in err
    assert Repository(models).names() == []
    assert list(models.glob("cut/.staging-*")) == []


@pytest.fixture(scope="module")
def user_model(tmp_path_factory):
    """A user's .keras file: two features in, the last step's first feature out."""
    keras.utils.set_random_seed(1)
    x = layers.Input((None, 2))
    h = layers.LSTM(4, name="memory")(layers.Normalization(mean=[0.0, 5.0], variance=[1.0, 4.0])(x))
    path = tmp_path_factory.mktemp("user") / "my.keras"
    keras.Model(x, layers.Dense(1)(h)).save(path)
    return path


def test_a_user_model_without_data_has_no_scores(user_model, tmp_path):
    arguments = ["export", str(user_model), "--name", "lab", "--feature", "flow:l/s", "--feature", "heat:degC"]
    arguments += ["--target", "flow:l/s", "--interval", "60", "--models-dir", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    manifest = Repository(tmp_path).verify("lab", 1)
    assert (manifest.residuals, manifest.scores, manifest.quantiles) == (None, None, ())
    assert [(f.name, f.unit) for f in manifest.features] == [("flow", "l/s"), ("heat", "degC")]
    assert (manifest.targets[0].name, manifest.interval_s) == ("flow", 60.0)
    assert "Published lab version 1" in result.output


def test_a_user_model_with_data_is_scored_and_gets_intervals(user_model, tmp_path):
    rng = np.random.default_rng(6)
    rows = [f"{60 * t},{a:.3f},{b:.3f}" for t, (a, b) in enumerate(zip(*rng.normal(size=(2, 900)), strict=True))]
    (tmp_path / "lab.csv").write_text("\n".join(["time,flow,heat", *rows]) + "\n")
    arguments = [
        "export",
        str(user_model),
        "--name",
        "lab",
        "--feature",
        "flow",
        "--feature",
        "heat",
        "--target",
        "flow",
    ]
    result = CliRunner().invoke(main, [*arguments, "--data", str(tmp_path / "lab.csv"), "--models-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    manifest = Repository(tmp_path).verify("lab", 1)
    assert len(manifest.residuals.quantiles) == 1  # it can't look ahead: heat is not predicted
    assert manifest.targets[0].scale == pytest.approx(1.0, abs=0.1)
    assert "report/report.html" in manifest.files
    assert "flow" in manifest.scores["targets"]


def test_a_refused_user_model_names_the_layer_and_publishes_nothing(tmp_path):
    x = layers.Input((None, 2))
    path = tmp_path / "bad.keras"
    keras.Model(x, layers.Dense(2)(layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")(x))).save(
        path
    )
    result = CliRunner().invoke(main, ["export", str(path), "--name", "bad", "--models-dir", str(tmp_path / "m")])
    assert result.exit_code == 1
    assert "layer 'both': it reads the future" in result.output
    assert Repository(tmp_path / "m").names() == []


def test_what_is_no_keras_file_is_said_in_a_sentence(tmp_path):
    path = tmp_path / "no.keras"
    path.write_text("not a model")
    with pytest.raises(TrainingError, match=r"no\.keras is not a Keras model"):
        publish_model(path, Description("x"), Repository(tmp_path / "m"), Console(file=io.StringIO()))


def test_a_second_version_goes_beside_the_first_and_another_contract_is_refused(user_model, tmp_path):
    shutil.copytree(user_model.parent, tmp_path / "user")
    models = str(tmp_path / "m")
    run = CliRunner().invoke
    first = ["export", str(user_model), "--name", "lab", "--models-dir", models]
    assert run(main, first).exit_code == 0
    assert run(main, first).exit_code == 0
    assert Repository(models).versions("lab") == [1, 2]
    assert Repository(models).resolve("lab") == 2
    other = run(main, [*first, "--interval", "60"])
    assert other.exit_code == 1
    assert "Use another name" in other.output
    assert Repository(models).versions("lab") == [1, 2]
