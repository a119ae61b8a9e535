"""The command line's manners: quick help, errors that say what to do, no tracebacks."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from training.__main__ import main


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
    ],
)
def test_a_user_error_is_one_clear_sentence(tmp_path, arguments, told):
    result = CliRunner().invoke(main, [*arguments, "--models-dir", str(tmp_path)])
    assert result.exit_code in (1, 2)
    assert told in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


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
