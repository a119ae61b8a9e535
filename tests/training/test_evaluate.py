"""Scores through the exported step: known beforehand for a closed form, and no number judged on rows that made it."""

import numpy as np
import pytest

from tests.training.closed import QUANTILES, Proportional, autoregressive, job, manifest
from training import metrics
from training.evaluate import evaluate
from training.hindcast import hindcast
from training.job import FeatureColumn, Gates, TargetColumn
from training.sources import Series
from training.windows import TooShort

PHI = 0.8


@pytest.fixture(scope="module")
def found():
    """The right forecaster for an autoregression of 20,000 hours, judged."""
    return evaluate(Proportional(PHI), manifest(), job(), [autoregressive(PHI, 20_000)])


def test_one_step_ahead_the_right_forecaster_scores_the_noise(found):
    scores = found.scores["targets"]["a"]
    assert scores["one_step"]["model"]["rmse"] == pytest.approx(1.0, abs=0.03)
    assert scores["one_step"]["last_value"]["rmse"] == pytest.approx(np.sqrt(2 / (1 + PHI)), abs=0.03)
    assert scores["one_step"]["ar24"]["rmse"] == pytest.approx(1.0, abs=0.03)
    assert scores["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found.scores["rows"] == 4_000


def test_further_ahead_errors_and_residual_quantiles_grow_as_they_must(found):
    errors = found.scores["targets"]["a"]["by_horizon"]["errors"]["model"]
    expected = [np.sqrt(sum(PHI ** (2 * k) for k in range(h))) for h in range(1, 7)]
    assert errors == pytest.approx(expected, rel=0.06)
    assert found.residuals.levels == QUANTILES
    bounds = [row[0][2] for row in found.residuals.quantiles]
    assert bounds == pytest.approx([1.645 * e for e in expected], rel=0.1)
    assert found.scores["targets"]["a"]["by_horizon"]["coverage"] == pytest.approx([0.9] * 6, abs=0.04)


def test_residual_quantiles_do_not_see_the_test_part():
    series = autoregressive(PHI, 4_000)
    other = series.values.copy()
    other[3_200:] = 50.0
    a = evaluate(Proportional(PHI), manifest(), job(), [series])
    b = evaluate(Proportional(PHI), manifest(), job(), [Series("s", series.times, other)])
    assert a.residuals == b.residuals
    assert a.scores != b.scores


def test_a_series_shorter_than_the_horizon_lends_no_test_rows_to_the_residual_quantiles():
    long, short = autoregressive(PHI, 2_000), autoregressive(PHI, 40, seed=2, key="short")
    wild = short.values.copy()
    wild[32:] = 1e6  # its validation part has 4 observations, and the horizon is 6
    a = evaluate(Proportional(PHI), manifest(), job(), [long, short])
    b = evaluate(Proportional(PHI), manifest(), job(), [long, Series("short", short.times, wild)])
    assert a.residuals == b.residuals


@pytest.mark.parametrize("horizon", [24, 60, 500])
def test_a_horizon_beyond_the_validation_part_is_refused_by_name(horizon):
    with pytest.raises(TooShort, match=f"look {horizon} steps ahead"):
        evaluate(Proportional(PHI), manifest(), job(horizon=horizon), [autoregressive(PHI, 60)])


def test_baselines_are_not_fitted_on_the_test_part():
    series = autoregressive(PHI, 4_000)
    other = series.values.copy()
    other[-1] += 100.0  # only the last truth moves: every forecast of the others has to stay
    a = evaluate(Proportional(PHI), manifest(), job(), [series]).references[0]
    b = evaluate(Proportional(PHI), manifest(), job(), [Series("s", series.times, other)]).references[0]
    for name in ("last_value", "seasonal_naive", "ar24"):
        np.testing.assert_array_equal(a[name], b[name])


def test_state_streams_from_the_start_and_look_ahead_feeds_the_point_forecast_back():
    values = autoregressive(PHI, 700, n_features=2).values
    (past,) = hindcast(Proportional(PHI), manifest(2), [values], [400], 5)
    assert past.states[:, 0].tolist() == list(range(400, 701))
    np.testing.assert_array_equal(past.next[:, :, 0], np.float32(PHI) * values[399:-1])
    expected = values[399:, None, :] * PHI ** np.arange(1, 6)[None, :, None]
    np.testing.assert_allclose(past.ahead, expected, rtol=1e-5, atol=1e-6)


def test_series_of_any_length_side_by_side_are_each_as_if_alone():
    lengths = [300, 120, 501] + [200 + i for i in range(70)]
    series = [autoregressive(PHI, n, seed=n).values for n in lengths]
    starts = [n // 2 for n in lengths]
    together = hindcast(Proportional(PHI), manifest(), series, starts, 3)
    for values, start, past in zip(series, starts, together, strict=True):
        (alone,) = hindcast(Proportional(PHI), manifest(), [values], [start], 3)
        for name in ("next", "ahead", "states"):
            np.testing.assert_array_equal(getattr(past, name), getattr(alone, name))


def test_a_model_that_does_not_predict_all_features_is_judged_one_step_ahead():
    narrow = job(2, targets=(TargetColumn(name="a"),))

    class First(Proportional):
        def step(self, x, state):
            y, state = super().step(x, state)
            return y[:, :1], state

    spec = manifest(2, targets=manifest().targets)
    found = evaluate(First(PHI), spec, narrow, [autoregressive(PHI, 2_000, n_features=2)])
    assert len(found.residuals.quantiles) == 1
    assert found.scores["targets"]["a"]["one_step"]["model"]["rmse"] == pytest.approx(1.0, abs=0.1)


def test_the_last_value_itself_has_no_skill():
    found = evaluate(Proportional(1.0), manifest(), job(), [autoregressive(PHI, 5_000)])
    assert not found.verdict.skill
    assert "no skill over the last value" in found.verdict.text
    assert found.verdict.text in found.reasons


@pytest.mark.parametrize("seed", range(8))
def test_a_lucky_edge_on_a_random_walk_is_no_skill(seed):
    found = evaluate(Proportional(0.9995), manifest(), job(), [autoregressive(1.0, 4_000, seed=seed)])
    assert not found.verdict.skill


def test_copies_of_one_series_prove_no_more_than_the_series():
    def p(copies):
        series = [autoregressive(0.98, 600, seed=5, key=str(i)) for i in range(copies)]
        return evaluate(Proportional(0.98), manifest(), job(), series).scores["targets"]["a"]["p"]

    assert 0.01 < p(1) < 0.4
    assert p(25) == pytest.approx(p(1))


def test_gates_that_are_missed_are_reasons_and_those_met_are_not():
    demands = Gates(rmse={"a": 0.5}, coverage=(0.87, 0.93))
    found = evaluate(Proportional(PHI), manifest(), job(gates=demands), [autoregressive(PHI, 5_000)])
    (reason,) = found.reasons
    assert reason.startswith("RMSE of a")
    assert "0.5 wanted" in reason
    narrow = evaluate(Proportional(PHI, sigma=0.5), manifest(), job(), [autoregressive(PHI, 5_000)])
    assert any("interval" in each for each in narrow.reasons)


VOLATILITY = job(
    features=(FeatureColumn(name="a", unit="percent", log=True, floor=0.01),),
    targets=(TargetColumn(name="a", loss="qlike"),),
    gates=Gates(qlike_ratio=1.03, skill=False),
)


def volatile(**lengths):
    """Daily volatilities by id, of those lengths."""
    rng = np.random.default_rng(2)
    series = []
    for key, n in lengths.items():
        level = autoregressive(0.95, n, sigma=0.2, seed=len(series)).values
        values = np.exp(level + 0.3 * rng.standard_normal(level.shape)).astype(np.float32)
        series.append(Series(key, 86400.0 * np.arange(n), values))
    return series


def test_a_gate_that_cannot_be_measured_for_one_series_fails_and_the_others_are_still_judged():
    found = evaluate(Proportional(1.0), manifest(), VOLATILITY, volatile(one=3_000, new=40))
    about_one, about_new = found.checks
    assert "for one" in about_one.text
    assert "of log-HAR's" in about_one.text
    assert "for new" in about_new.text
    assert "too little data to fit a log-HAR" in about_new.text
    assert not about_new.passed
    target = found.scores["targets"]["a"]
    assert "log_har" in target["series"]["one"]["one_step"]
    assert "log_har" not in target["one_step"]  # it would compare errors over other rows


def test_a_baseline_without_error_is_no_division_by_zero():
    same = np.full((400, 1), 2.0, np.float32)
    found = evaluate(Proportional(1.0), manifest(), VOLATILITY, [Series("still", 86400.0 * np.arange(400), same)])
    assert [check.passed for check in found.checks] == [True]
    found = evaluate(Proportional(1.1), manifest(), VOLATILITY, [Series("still", 86400.0 * np.arange(400), same)])
    assert [check.passed for check in found.checks] == [False]


def test_volatility_is_judged_by_qlike_series_by_series_beside_log_har():
    found = evaluate(Proportional(1.0), manifest(), VOLATILITY, volatile(one=3_000, two=3_000))
    target = found.scores["targets"]["a"]
    assert target["loss"] == "qlike"
    assert {"log_har", "last_value"} <= set(target["one_step"])
    assert set(target["series"]) == {"one", "two"}
    assert target["one_step"]["log_har"]["qlike"] < target["one_step"]["last_value"]["qlike"]
    assert sum("log-HAR" in each for each in found.reasons) == 2


def test_without_quantiles_intervals_come_from_the_validation_residuals():
    class Point(Proportional):
        def step(self, x, state):
            y, state = super().step(x, state)
            return y[..., :1], state

    found = evaluate(
        Point(PHI), manifest(quantiles=()), job(quantiles=(), gates=Gates()), [autoregressive(PHI, 10_000)]
    )
    assert found.scores["targets"]["a"]["coverage"] == pytest.approx(0.9, abs=0.03)
    assert found.scores["level"] == pytest.approx(0.9)


def test_qlike_is_zero_for_the_truth_and_punishes_low_forecasts_more():
    truth = np.array([1.0, 2.0])
    np.testing.assert_allclose(metrics.losses("qlike", truth, truth), 0.0)
    low, high = metrics.losses("qlike", truth, truth / 2), metrics.losses("qlike", truth, truth * 2)
    np.testing.assert_allclose(low, 4 - np.log(4) - 1)
    assert (low > high).all()


def test_an_advantage_of_correlated_losses_is_less_certain():
    rng = np.random.default_rng(3)
    noise = rng.normal(0.05, 1, 4_000)
    smooth = np.convolve(noise, np.ones(10) / np.sqrt(10), "same")
    _, plain = metrics.advantage(noise, np.zeros(4_000))
    _, correlated = metrics.advantage(smooth, np.zeros(4_000), lag=20)
    assert plain == pytest.approx(1 / 4_000, rel=0.25)
    assert correlated > 4 * plain
    assert metrics.p_value(1.0, 1.0) == pytest.approx(0.1587, abs=1e-3)
    assert metrics.p_value(-1.0, 0.0) == 1.0


def test_figures_have_four_significant_digits_so_that_columns_line_up():
    shown = [metrics.shown(value) for value in (1.08, 0.879, 0.005056, 123.456, 1542.3, 0.0, np.inf)]
    assert shown == ["1.080", "0.8790", "0.005056", "123.5", "1542", "0.000", "inf"]
