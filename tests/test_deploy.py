"""What the compose file, the images and the CronJob say is what the commands take; the CronJob's script means it."""

import os
import re
import signal
import subprocess
import textwrap
from itertools import takewhile

import pytest

from service.settings import Settings, variable
from tests.serving import ROOT, wait_until
from training.__main__ import main
from training.decision import EXIT_CODES

CRONJOB = ROOT / "deploy" / "kubernetes" / "retrain.yaml"
FILES = (ROOT / "docker-compose.yml", ROOT / "Dockerfile", CRONJOB)
OWN = {"RECURVE_JOBS"}  # the compose file's, for what it hands to `schedule`


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_variable_that_is_set_is_one_that_is_read(file):
    read = {variable(name) for name in Settings.model_fields} | OWN
    read |= {str(option.envvar) for command in main.commands.values() for option in command.params if option.envvar}
    found = set(re.findall(r"\bRECURVE_[A-Z_]+", file.read_text()))
    assert found
    assert found <= read


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_command_of_training_is_one_and_has_these_options(file):
    commands = re.findall(r"python -m training (\w+)([^\n]*)", file.read_text())
    for name, rest in commands:
        known = {word for option in main.commands[name].params for word in option.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known, name
    if file is not FILES[1]:
        assert {"docker-compose.yml": "schedule", "retrain.yaml": "retrain"}[file.name] in dict(commands)


def cron_script():
    """The shell script that the CronJob runs."""
    lines = CRONJOB.read_text().split("- -uc\n", 1)[1].splitlines()[1:]
    margin = re.match(" *", lines[0])[0]
    return textwrap.dedent("\n".join(takewhile(lambda line: line.startswith(margin), lines)))


@pytest.fixture
def retrains(tmp_path):
    """Begins the CronJob's script with a `python` of ours; the process, in a folder where it can leave something."""

    def begin(python):
        fake = tmp_path / "python"
        fake.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/said\n{python}\n')
        fake.chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.Popen(["sh", "-uc", cron_script()], cwd=tmp_path, env=environment)

    return begin


@pytest.mark.parametrize("outcome", EXIT_CODES)
def test_a_job_fails_where_its_run_did_and_not_where_there_was_nothing_to_publish(retrains, tmp_path, outcome):
    process = retrains(f"exit {EXIT_CODES[outcome]}")
    fine = outcome in ("published", "rejected", "nothing_new", "locked")
    assert process.wait(60) == (0 if fine else EXIT_CODES[outcome])
    assert (tmp_path / "said").read_text() == "-m training retrain /etc/recurve/lab.toml --json\n"


def test_a_job_that_is_ended_stops_its_run_and_waits_for_it(retrains, tmp_path):
    process = retrains("trap 'touch stopped; exit 130' TERM\ntouch started\nwhile :; do sleep 0.05; done")
    wait_until((tmp_path / "started").exists, 60, "the run")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert (tmp_path / "stopped").exists()
