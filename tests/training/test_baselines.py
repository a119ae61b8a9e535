"""Baselines: closed forms, causality, and the figures of the shipped series."""

import numpy as np
import pytest

from training.baselines import ar, last_value, log_har, seasonal_naive
from training.job import load_job
from training.sources import load_series


def judged(baseline, values):
    """Truths and one-step forecasts of the last fifth."""
    start = int(len(values) * 0.8)
    return values[start:], baseline.forecast(values)[start - 1 : -1, 0]


def errors(baseline, values):
    truth, forecast = judged(baseline, values)
    return np.sqrt(np.mean((truth - forecast) ** 2)), np.mean(np.abs(truth - forecast))


def qlike(baseline, values):
    truth, forecast = judged(baseline, values)
    ratio = truth**2 / forecast**2
    return np.mean(ratio - np.log(ratio) - 1)


@pytest.fixture(scope="module")
def temperature():
    return load_series(load_job("sensor"))[0].values[:, 0].astype(np.float64)


@pytest.fixture(scope="module")
def stocks():
    return {each.id: each.values[:, 0].astype(np.float64) for each in load_series(load_job("finance"))}


@pytest.fixture(scope="module")
def rate():
    return load_series(load_job("eurusd"))[0].values[:, 0].astype(np.float64)


def test_the_figures_of_the_temperature_are_reproduced(temperature):
    assert errors(last_value(), temperature) == pytest.approx((1.542, 1.069), abs=6e-4)
    assert errors(ar(temperature[: int(len(temperature) * 0.8)]), temperature) == pytest.approx(
        (1.233, 0.879), abs=6e-4
    )


def test_the_linear_gain_over_the_last_value_grows_with_the_horizon(temperature):
    start = int(len(temperature) * 0.8)
    fitted = ar(temperature[:start]).forecast(temperature, 12)
    naive = last_value().forecast(temperature, 12)
    for ahead, ratio in ((3, 0.58), (6, 0.47), (12, 0.41)):
        truth = temperature[start + ahead - 1 :]
        rows = slice(start - 1, start - 1 + len(truth))
        rmse = [np.sqrt(np.mean((truth - each[rows, ahead - 1]) ** 2)) for each in (fitted, naive)]
        # the published ratios are those of the best linear model, which a univariate one does not quite reach
        assert ratio < rmse[0] / rmse[1] < ratio + 0.25


@pytest.mark.parametrize(("name", "figure"), [("IBM", 0.275), ("MSFT", 0.288), ("AAPL", 0.399)])
def test_the_figures_of_log_har_are_reproduced(stocks, name, figure):
    values = stocks[name]
    assert qlike(log_har(values[: int(len(values) * 0.8)]), values) == pytest.approx(figure, abs=6e-4)


def test_without_half_the_residual_variance_log_har_would_be_worse(stocks):
    values = stocks["IBM"]
    fitted = log_har(values[: int(len(values) * 0.8)])
    truth, forecast = judged(fitted, values)
    ratio = truth**2 / (forecast**2 / np.exp(fitted.residual_variances[0] / 2))
    assert np.mean(ratio - np.log(ratio) - 1) == pytest.approx(0.300, abs=6e-4)


def test_a_random_walk_has_the_known_figure(stocks):
    assert qlike(last_value(), stocks["IBM"]) == pytest.approx(0.439, abs=6e-4)


def test_the_figures_of_the_euro_are_reproduced(rate):
    assert errors(last_value(), rate) == pytest.approx((0.005061, 0.003645), abs=6e-7)
    assert errors(ar(rate[: int(len(rate) * 0.8)]), rate) == pytest.approx((0.005052, 0.003642), abs=6e-7)


def test_the_last_value_stays():
    assert last_value().forecast(np.array([1.0, 5.0]), 3).tolist() == [[1, 1, 1], [5, 5, 5]]


def test_the_seasonal_naive_forecast_repeats_the_last_season_at_any_horizon():
    season = [3.0, 1.0, 4.0]
    values = np.array(season * 4)
    forecast = seasonal_naive(3).forecast(values, 7)
    for row in range(3, 5):
        assert forecast[row].tolist() == values[row + 1 : row + 8].tolist()
    assert np.isnan(forecast[0, 0])
    assert forecast[0, 2] == 3.0


def test_an_autoregression_finds_its_own_process_and_continues_it():
    values = [1.0, 0.5]
    for _ in range(300):
        values.append(2.0 + 1.6 * values[-1] - 0.9 * values[-2])
    values = np.array(values)
    fitted = ar(values[:150], lags=2)
    assert fitted.weights == pytest.approx([1.6, -0.9])
    assert fitted.intercept == pytest.approx(2.0)
    assert fitted.forecast(values, 5)[200] == pytest.approx(values[201:206])


@pytest.mark.parametrize(
    "make", [lambda v: last_value(), lambda v: seasonal_naive(5), lambda v: ar(v), lambda v: log_har(v, 4)]
)
def test_no_forecast_moves_when_later_values_do(make, stocks):
    values = stocks["MSFT"][:400]
    baseline = make(values[:200])
    changed = values.copy()
    changed[301:] *= 3
    before, after = baseline.forecast(values, 4), baseline.forecast(changed, 4)
    assert before.shape == (400, 4)
    np.testing.assert_array_equal(before[:301], after[:301])
    assert not np.array_equal(before[301:], after[301:])


def test_log_har_knows_no_horizon_it_was_not_fitted_for(stocks):
    with pytest.raises(ValueError, match="horizon of 2, not 3"):
        log_har(stocks["IBM"][:500], horizon=2).forecast(stocks["IBM"], 3)


def test_log_har_survives_days_without_a_range(stocks):
    values = stocks["IBM"][:500].copy()
    values[::50] = 0
    assert np.isfinite(log_har(values, floor=0.05).forecast(values)[21:]).all()


def test_too_little_past_is_said():
    with pytest.raises(ValueError, match="too few"):
        ar(np.arange(30.0))
    with pytest.raises(ValueError, match="too few"):
        log_har(np.ones(30))
