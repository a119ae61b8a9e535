"""The shipped jobs on the shipped series, trained for real by the commands a user types, held to their gates."""

import pytest
from click.testing import CliRunner

from models.manifest import STEP_TFLITE
from models.repository import Repository
from training.__main__ import main

LAST_VALUE = 1.542  # RMSE of the temperature one hour ahead, degC


@pytest.fixture
def train(tmp_path, capfd):
    """Trains a shipped job; the command's result and the scores of what it published, None if it did not."""

    def run(*arguments):
        result = CliRunner().invoke(main, ["train", *arguments, "--models-dir", str(tmp_path)])
        repository = Repository(tmp_path)
        published = arguments[0] in repository.names()
        scores = repository.verify(arguments[0], 1).scores if published else None
        if published:
            assert STEP_TFLITE in repository.verify(arguments[0], 1).files
        with capfd.disabled():
            told = [line for line in result.output.splitlines() if line.startswith(("✓", "✗", "Error"))]
            print("", " ".join(arguments), *told, sep="\n  ", flush=True)
        return result, scores

    return run


@pytest.mark.parametrize(("arguments", "most"), [(["--quick"], 1.20), ([], 1.13)], ids=["quick", "full"])
def test_the_weather_is_forecast_better_than_any_simple_forecast_and_its_intervals_hold(train, arguments, most):
    result, scores = train("sensor", *arguments)
    assert result.exit_code == 0, result.output
    temperature = scores["targets"]["temperature"]
    assert temperature["one_step"]["last_value"]["rmse"] == pytest.approx(LAST_VALUE, abs=0.001)
    assert temperature["one_step"]["model"]["rmse"] <= most
    assert 0.87 <= temperature["coverage"] <= 0.93
    assert set(scores["targets"]) == {"temperature", "dew_point", "pressure"}


def test_the_volatility_of_each_share_is_forecast_about_as_well_as_by_log_har(train):
    result, scores = train("finance", "--quick")
    assert result.exit_code == 0, result.output
    volatility = scores["targets"]["volatility"]
    log_har = {"IBM": 0.275, "MSFT": 0.288, "AAPL": 0.399}
    for share, expected in log_har.items():
        found = volatility["series"][share]["one_step"]
        assert found["log_har"]["qlike"] == pytest.approx(expected, abs=0.005)
        assert found["model"]["qlike"] <= 1.03 * found["log_har"]["qlike"]
    assert 0.87 <= volatility["coverage"] <= 0.93


def test_the_euro_is_not_forecast_and_nothing_is_published(train, tmp_path):
    result, scores = train("eurusd")
    assert result.exit_code == 1
    assert scores is None
    assert "not published: rate: no skill over the last value" in result.output
    assert "no skill over the last value" in (tmp_path / "eurusd.refused" / "report.html").read_text()
