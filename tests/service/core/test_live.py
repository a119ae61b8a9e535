"""Live accuracy: intervals that keep their level, scores of how unusual an error is, sums for the metrics."""

import math

import numpy as np
import pytest

from service.core.predictor import Limits, Predictor
from service.core.record import decode
from service.core.registry import Served, ServedModel
from service.core.requests import MARKS
from service.core.scoring import ANOMALY_AFTER, STRETCH, STRETCH_MOST
from tests.desk import HOUR, Desk
from tests.fakes import LeakyIntegrator, make_spec

HIT, MISS = -STRETCH * 0.1, STRETCH * 0.9  # what an interval's logarithm moves by, at a level of 90 %


def adaptive(**spec):
    """A desk whose intervals adapt; the model's own reach 1 to either side."""
    return Desk(make_spec(**spec), Limits(adaptive_intervals=True))


def half_widths(answer):
    """How far the interval reaches below and above the point, the first target's."""
    (lower, upper), point = answer.interval[-1, 0].tolist(), float(answer.y[-1, 0, 0])
    return point - lower, upper - point


def wide(logarithm):
    return pytest.approx((math.exp(logarithm),) * 2, rel=1e-5)


def update(desk, **more):
    """Version 2, of other weights, takes over; version 1 is not served any more."""
    spec = make_spec(**{"version": 2, "fingerprint": "11", **more})
    desk.registry.replace({"toy": ServedModel("toy", 2, {"stable": 2}, {2: Served(spec, LeakyIntegrator(0.25), {})})})


def test_an_interval_narrows_a_little_after_each_hit_and_widens_nine_times_as_much_after_a_miss():
    desk = adaptive()
    assert half_widths(desk.send(0.0)) == (1.0, 1.0)
    assert half_widths(desk.send(0.5)) == wide(HIT)
    assert half_widths(desk.send(9.0)) == wide(HIT + MISS)
    assert half_widths(desk.send(9.0)) == wide(HIT + 2 * MISS)
    (live,) = desk.predictor.inspect(desk.key).live
    assert live.factor == pytest.approx(math.exp(HIT + 2 * MISS))


def test_without_the_setting_intervals_are_the_models_own():
    desk = Desk(make_spec())
    for value in (0.0, 0.0, 9.0, 9.0):
        assert half_widths(desk.send(value)) == (1.0, 1.0)
    assert decode(desk.key, desk.stored()).tracks[0].stretch == (0.0,)


def test_switched_off_and_on_again_intervals_begin_anew_and_a_retry_still_gets_its_numbers():
    desk = adaptive()
    for value in (0.0, 9.0):
        first = desk.send(value, horizon=3)
    off = Predictor(desk.registry, desk.store, desk.clock)
    desk.predictor, adapting = off, desk.predictor
    again = desk.send(9.0, step=2, horizon=3)
    assert again.replayed
    assert again.interval.tolist() == first.interval.tolist()
    assert again.ahead.tolist() == first.ahead.tolist()
    assert off.forecast(desk.key, 1).interval[0, 0].tolist() == [first.y[-1, 0, 0] - 1, first.y[-1, 0, 0] + 1]
    assert half_widths(desk.send(0.0)) == (1.0, 1.0)
    desk.predictor = adapting
    assert half_widths(desk.send(90.0)) == wide(MISS)


def test_several_observations_at_once_get_what_they_get_one_by_one():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 3, 60).tolist()
    one, many = adaptive(), adaptive()
    singles = [one.send(value) for value in values]
    many.send(*values[:7])
    answer = many.send(*values[7:])
    assert answer.interval.tolist() == [single.interval[0].tolist() for single in singles[7:]]
    assert answer.previous.anomaly is None
    assert decode(one.key, one.stored()).tracks[0].stretch == decode(many.key, many.stored()).tracks[0].stretch
    np.testing.assert_allclose(answer.marks.sums, np.sum([single.marks.sums for single in singles[7:]], axis=0))


def test_looking_ahead_is_as_wide_as_the_prediction():
    desk = adaptive()
    desk.send(0.0)
    answer = desk.send(9.0, horizon=3)
    (lower, upper), reach = answer.interval[0, 0].tolist(), math.exp(MISS)
    assert answer.ahead[0, 0, 1:].tolist() == [lower, upper]
    assert (answer.ahead[2, 0, 1:] - answer.ahead[2, 0, 0]).tolist() == pytest.approx([-reach, reach])
    forecast = desk.predictor.forecast(desk.key, 3)
    assert forecast.interval.tolist() == answer.interval.tolist()
    assert forecast.ahead.tolist() == answer.ahead.tolist()


def test_an_interval_is_not_widened_beyond_what_can_be_observed():
    desk = adaptive(limits=((0.0, 50.0),))
    desk.send(4.0)
    told = np.array([desk.send(value).interval[0, 0] for value in (48.0, 2.0) * 60])
    assert desk.predictor.inspect(desk.key).live[0].factor > 20
    assert (told.min(), told.max()) == (0.0, 50.0)


def test_a_model_whose_own_interval_lies_beyond_the_limits_keeps_it():
    desk = adaptive(limits=((10.0, 50.0),))
    desk.send(0.0)
    lower, upper = desk.send(5.0).interval[0, 0].tolist()
    assert lower < upper < 10.0


def test_widths_end_at_a_hundredfold():
    desk = adaptive()
    for value in (1e6, -1e6) * 70:
        answer = desk.send(value)
    assert half_widths(answer) == pytest.approx((100.0, 100.0), rel=0.05)
    assert decode(desk.key, desk.stored()).tracks[0].stretch == (STRETCH_MOST,)


def test_a_point_outside_its_own_interval_leaves_intervals_nested():
    class Lopsided(LeakyIntegrator):
        def step(self, x, state):
            y, following = super().step(x, state)
            y[..., 0] += 5
            return y, following

    desk = Desk(make_spec(), Limits(adaptive_intervals=True), Lopsided())
    desk.send(0.0)
    before = [-1.0, 1.0]
    for _ in range(5):
        lower, upper = desk.send(90.0, -90.0).interval[-1, 0] - (desk.predictor.forecast(desk.key, 1).y[0, 0, 0] - 5)
        assert lower < before[0]
        assert upper == pytest.approx(1.0, abs=1e-4)
        before = [lower, upper]


def test_nothing_moves_an_interval_after_a_gap():
    desk = adaptive(interval_s=HOUR)
    desk.send(0.0, times=(HOUR,))
    desk.send(9.0, times=(2 * HOUR,))
    assert half_widths(desk.send(90.0, times=(5 * HOUR,))) == wide(MISS)
    assert half_widths(desk.send(-90.0, times=(6 * HOUR,))) == wide(2 * MISS)


def test_new_weights_begin_with_their_own_intervals_and_are_not_judged_by_what_the_old_ones_said():
    desk = adaptive()
    for value in (0.0, 9.0, 90.0):
        desk.send(value)
    update(desk)
    answer = desk.send(-90.0)
    assert (answer.state.status, answer.marks) == ("rebuilt", None)
    assert half_widths(answer) == (1.0, 1.0)
    assert desk.predictor.inspect(desk.key).scored == 3, "the client was told it all the same"
    answer = desk.send(90.0)
    assert answer.marks.sums[0] == 1
    assert half_widths(answer) == wide(MISS)


def test_a_history_leaves_intervals_as_the_model_has_them():
    desk = adaptive()
    desk.send(0.0)
    desk.send(9.0)
    assert half_widths(desk.prime(0.0, 9.0, 0.0)) == (1.0, 1.0)
    assert half_widths(desk.send(99.0)) == wide(MISS)


def test_a_target_that_no_feature_observes_is_never_adapted_nor_scored():
    desk = adaptive(features=("a",), predicts=("a", "hidden"), feedback=None)
    desk.engine.step, step = lambda x, s: (np.repeat(step(x, s)[0], 2, axis=1), step(x, s)[1]), desk.engine.step
    for value in (0.0, *(9.0, -9.0) * 15):
        answer = desk.send(value)
    assert decode(desk.key, desk.stored()).tracks[0].stretch[1] == 0.0
    assert answer.marks.sums[MARKS:] == (0.0,) * MARKS
    assert math.isnan(answer.previous.anomaly[1])
    assert answer.previous.anomaly[0] > 0


def test_an_observation_is_scored_by_the_clients_own_errors_once_there_are_enough():
    desk = adaptive()
    desk.send(0.0)
    for n in range(ANOMALY_AFTER):
        answer = desk.send((-1.0) ** n)
        assert answer.previous.anomaly is None
    (live,) = desk.predictor.inspect(desk.key).live
    predicted = float(answer.y[0, 0, 0])
    answer = desk.send(predicted + 7 * live.rmse, step=ANOMALY_AFTER + 2)
    assert answer.previous.anomaly.tolist() == pytest.approx([7.0], rel=1e-4)
    again = desk.send(predicted + 7 * live.rmse, step=ANOMALY_AFTER + 2)
    assert (again.replayed, again.marks) == (True, None)
    assert again.previous.anomaly.tolist() == answer.previous.anomaly.tolist()


def test_an_error_where_there_never_was_one_is_as_unusual_as_can_be_and_finite():
    desk = adaptive()
    for _ in range(60):
        desk.send(0.0)
    assert desk.send(3e38).previous.anomaly.tolist() == [np.float32(1e9)]


def test_marks_are_the_sums_that_the_metrics_need():
    desk = adaptive()
    assert desk.send(0.0).marks is None
    assert desk.send(0.5).marks.sums == (1.0, 0.5, 0.25, 0.25, 1.0, 1.0)
    answer = desk.send(8.25, 4.0)  # 8 off and outside, then below its interval by less than it was before
    scored, absolute, squared, naive, covered, bounded = answer.marks.sums
    errors = 8.25 - 0.25, 4.0 - (0.25 + 8.25) / 2
    assert (scored, bounded, covered) == (2.0, 2.0, 1.0)
    assert (absolute, squared) == pytest.approx((sum(map(abs, errors)), sum(e * e for e in errors)))
    assert naive == pytest.approx(7.75**2 + 4.25**2)
    bare = adaptive(interval_columns=None, residuals=None, level=None)
    bare.send(0.0)
    assert bare.send(1.0).marks.sums == (1.0, 1.0, 1.0, 1.0, 0.0, 0.0)


def test_skill_is_what_the_error_is_less_than_that_of_the_last_value():
    desk = adaptive()
    desk.send(8.0)
    desk.send(5.0)
    (live,) = desk.predictor.inspect(desk.key).live
    assert (live.rmse, live.naive_rmse, live.skill) == (1.0, 3.0, pytest.approx(2 / 3))
    still = adaptive()
    still.send(8.0)
    still.send(8.0)
    assert still.predictor.inspect(still.key).live[0].skill is None
