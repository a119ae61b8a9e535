"""Settings: one list of them for the environment and the command line, and a clear word for what can't be used."""

import os

import pytest
from click.testing import CliRunner

from service import __main__ as command
from service.banner import banner
from service.settings import SECRETS, Settings, SettingsInvalid, read_settings, variable


def test_every_setting_has_a_default_a_description_and_a_variable():
    settings = read_settings({})
    for name, field in Settings.model_fields.items():
        assert field.description
        assert variable(name) == f"RECURVE_{name.upper()}"
    assert (settings.host, settings.port, settings.workers, settings.threads) == ("127.0.0.1", 8000, 2, 8)
    assert settings.state_url == "sqlite:///var/state"
    assert str(settings.models_dir) == "models/published"
    assert (settings.engine, settings.max_body_bytes, settings.access_log) == ("auto", 1024 * 1024, False)


def test_what_is_written_to_the_environment_reads_back_the_same():
    for settings in (
        read_settings({}),
        read_settings({"RECURVE_ADMIN_TOKEN": "sixteen-and-more"}),
        read_settings({}, port=9000, access_log=True, idle_ttl_s=60.5, state_url="memory://", workers=1),
    ):
        assert read_settings(settings.environment()) == settings


def test_an_empty_variable_is_unset_and_others_are_left_alone():
    assert read_settings({"RECURVE_PORT": "", "PORT": "1", "RECURVE_OTHER": "x"}).port == 8000


def test_an_override_wins_and_none_does_not():
    assert read_settings({"RECURVE_PORT": "9000"}, port=9001, workers=None).port == 9001
    assert read_settings({"RECURVE_PORT": "9000"}, port=None).port == 9000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECURVE_PORT", "eighty"),
        ("RECURVE_PORT", "0"),
        ("RECURVE_PORT", "65536"),
        ("RECURVE_WORKERS", "0"),
        ("RECURVE_POLL_S", "nan"),
        ("RECURVE_POLL_S", "-1"),
        ("RECURVE_ENGINE", "onnx"),
        ("RECURVE_ACCESS_LOG", "perhaps"),
        ("RECURVE_IDLE_TTL_S", "0"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable_and_option(name, value):
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({name: value})
    assert name in str(caught.value)
    assert f"--{name.removeprefix('RECURVE_').lower().replace('_', '-')}" in str(caught.value)
    assert value in str(caught.value)


def test_memory_is_refused_with_more_than_one_worker():
    with pytest.raises(SettingsInvalid, match="inside one process"):
        read_settings({"RECURVE_STATE_URL": "memory://"})
    assert read_settings({"RECURVE_STATE_URL": "memory://", "RECURVE_WORKERS": "1"}).workers == 1


@pytest.fixture
def started(monkeypatch):
    """Runs the command line up to where gunicorn would start; what it would find in its environment."""
    found = {}
    monkeypatch.setattr("service.server.start.serve", lambda: found.update(os.environ))

    def run(*arguments, **environment):
        result = CliRunner(env=environment).invoke(command.main, list(arguments))
        return result, found

    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.setenv(variable(name), "")
        yield run


def test_the_command_line_wins_over_the_environment(started):
    result, found = started("--port", "8111", "--access-log", RECURVE_PORT="1", RECURVE_WORKERS="5")
    assert result.exit_code == 0, result.output
    assert (found["RECURVE_PORT"], found["RECURVE_WORKERS"], found["RECURVE_ACCESS_LOG"]) == ("8111", "5", "true")


def test_serving_may_be_named_as_the_command(started):
    result, found = started("serve", "--port", "8111")
    assert result.exit_code == 0, result.output
    assert found["RECURVE_PORT"] == "8111"


def test_options_for_serving_before_another_command_are_refused_rather_than_ignored(started):
    result, found = started("--state-url", "sqlite:///elsewhere", "state", "migrate")
    assert result.exit_code == 2
    assert "no options of 'state'" in result.output
    assert found == {}


def test_a_wrong_option_is_a_usage_error_and_starts_nothing(started):
    result, found = started("--port", "eighty")
    assert result.exit_code == 2
    assert "--port" in result.output
    assert found == {}


def test_help_explains_every_setting_with_its_variable_and_default():
    text = " ".join(CliRunner().invoke(command.main, ["--help"]).output.split())
    for name in Settings.model_fields:
        assert (f"--{name.replace('_', '-')}" in text) is (name not in SECRETS)
        assert variable(name) in text
    assert "default: sqlite:///var/state" in text


def test_the_banner_says_where_it_listens_and_that_nothing_is_there_yet(tmp_path):
    text = banner(read_settings({}, models_dir=tmp_path, host="::1"))
    assert "http://[::1]:8000" in text
    assert "nothing yet" in text


def test_the_banner_keeps_passwords_to_itself():
    assert "hunter2" not in banner(read_settings({}, state_url="redis://user:hunter2@cache:6379/0"))


@pytest.mark.parametrize("token", ["hunter2", "with a space in between", "x" * 257, "caf\xe9-caf\xe9-caf\xe9-caf\xe9"])
def test_a_secret_is_checked_and_never_shown(token):
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({"RECURVE_ADMIN_TOKEN": token})
    assert "RECURVE_ADMIN_TOKEN" in str(caught.value)
    assert token not in str(caught.value) + str(caught.value.__cause__)


def test_a_secret_is_in_no_print_and_goes_to_the_workers_by_the_environment_alone(started):
    secret = "hunter2-hunter2-hunter2"
    settings = read_settings({"RECURVE_ADMIN_TOKEN": secret})
    assert secret not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    result, found = started(RECURVE_ADMIN_TOKEN=secret)
    assert found["RECURVE_ADMIN_TOKEN"] == secret
    assert secret not in result.output
    result, _ = started("--admin-token", secret)
    assert result.exit_code == 2, "everybody on the machine sees a command line"
