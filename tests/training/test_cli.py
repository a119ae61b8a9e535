"""The command line's manners: quick help, errors that say what to do, no tracebacks."""

import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from models.manifest import Manifest
from training.__main__ import MIN_INTERVAL_S, NAME, main
from training.fit import Diverged
from training.job import load_job


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["export"]])
def test_help_explains_with_an_example(command):
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert "python -m training" in result.output


def test_help_loads_neither_frameworks_nor_tables():
    code = (
        "import sys; from training.__main__ import main; main(['train', '--help'], standalone_mode=False); "
        "print({'tensorflow', 'keras', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "nothing"], "shipped are"),
        (["train", "nothing.toml"], "no such job"),
        (["evaluate", "nothing"], "train or export it first"),
        (["evaluate", "nothing", "--version", "0"], "--version"),
        (["evaluate", "nothing", "--data", "absent.csv"], "does not exist"),
        (["export", "absent.keras", "--name", "x"], "does not exist"),
        (["train", "sensor", "--architecture", "transformer"], "feed_forward"),
        (["export", __file__, "--name", "x", "--feature", ":degC"], "NAME:UNIT"),
        (["export", __file__, "--name", "x", "--import", "no.such.module"], "can't be imported"),
        (["export", __file__, "--name", "My Model"], "'My Model' is not a name"),
        (["export", __file__, "--name", "x\n"], "is not a name"),
        (["export", __file__, "--name", "x", "--interval", "1e-5"], "at least 0.001"),
        (["export", __file__, "--name", "x", "--interval", "nan"], "at least 0.001"),
        (["export", __file__, "--name", "x", "--interval", "inf"], "at least 0.001"),
        (["evaluate", "../x"], "../x"),
    ],
)
def test_a_user_error_is_one_clear_sentence(tmp_path, arguments, told):
    result = CliRunner().invoke(main, [*arguments, "--models-dir", str(tmp_path)])
    assert result.exit_code in (1, 2)
    assert told in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_module_that_raises_when_imported_is_said_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "raises_at_import.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", __file__, "--name", "x", "--import", "raises_at_import"])
    assert result.exit_code == 2
    assert "raises_at_import can't be imported: ZeroDivisionError" in result.output


def test_a_damaged_model_file_is_said_in_a_sentence(tmp_path):
    whole, bad = tmp_path / "whole.zip", tmp_path / "bad.keras"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("config.json", "{}" * 500)
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", "")
    bad.write_bytes(whole.read_bytes().replace(b"{}{}", b"{}[]", 1))
    result = CliRunner().invoke(main, ["export", str(bad), "--name", "x", "--models-dir", str(tmp_path / "m")])
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert isinstance(result.exception, SystemExit)


def test_names_and_intervals_are_bounded_as_the_manifest_bounds_them():
    name, interval = Manifest.model_fields["name"], Manifest.model_fields["interval_s"]
    assert [each.pattern for each in name.metadata if hasattr(each, "pattern")] == [f"^{NAME}$"]
    assert [each.ge for each in interval.metadata] == [MIN_INTERVAL_S]


class Wanted(BaseModel):
    """Something that says what it wants."""

    flow: float


@pytest.mark.parametrize(
    ("raised", "told"),
    [(lambda: Wanted(flow="fast"), "wanted can't be used: flow: Input should be a valid number"),
     (lambda: _raise(Diverged(load_job("sensor"))), "sensor: the loss is not finite")],
)  # fmt: skip
def test_what_the_libraries_refuse_and_a_diverged_fit_are_sentences(monkeypatch, tmp_path, raised, told):
    monkeypatch.setattr("training.pipeline.train", lambda *_, **__: raised())
    result = CliRunner().invoke(main, ["train", "sensor", "--models-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert told in result.output


@pytest.mark.parametrize("error", [ValueError("ours"), ArithmeticError("ours")])
def test_a_bug_still_shows_its_traceback(monkeypatch, tmp_path, error):
    monkeypatch.setattr("training.pipeline.train", lambda *_, **__: _raise(error))
    result = CliRunner().invoke(main, ["train", "sensor", "--models-dir", str(tmp_path)])
    assert result.exception is error


def _raise(error):
    raise error


def test_a_wrong_job_file_names_every_wrong_field(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text('name = "Wrong Name"\n[source]\npath = "x.csv"\n')
    result = CliRunner().invoke(main, ["train", str(path), "--models-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "name:" in result.output
    assert "features:" in result.output


def test_a_missing_data_file_is_named_before_anything_slow_happens(tmp_path):
    path = tmp_path / "lost.toml"
    path.write_text('name = "lost"\n[source]\npath = "lost.csv"\n[[features]]\nname = "a"\n[[targets]]\nname = "a"\n')
    result = CliRunner().invoke(main, ["train", str(path), "--models-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "lost.csv" in result.output
