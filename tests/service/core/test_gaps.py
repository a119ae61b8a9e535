"""Times: in order, on the interval, and what lies between filled, restarted or refused by name."""

import numpy as np
import pytest

from service.core.errors import InvalidInput, OrderConflict, Unsupported
from tests.desk import HOUR, Desk
from tests.fakes import make_spec

NOW = 1_700_000_000.0
T0 = NOW - 100 * HOUR


def at(*hours):
    return tuple(T0 + hour * HOUR for hour in hours)


def test_filling_steps_on_the_models_own_predictions(hourly):
    start = hourly.send(8, times=at(0))
    answer = hourly.send(6, times=at(3))
    assert (answer.state.status, answer.state.filled, answer.step) == ("carried", 2, 2)
    # the leaky integrator predicts its state, so two filled steps leave the state where it was
    assert answer.y[0, 0, 0] == 0.5 * start.y[0, 0, 0] + 0.5 * 6
    assert answer.previous is None, "the observation after a gap is not scored"
    view = hourly.predictor.inspect(hourly.key)
    assert (view.context, view.context_kept, view.scored) == (2, 4, 0)


def test_a_gap_inside_a_request_is_filled_too(hourly):
    assert hourly.send(8, 6, times=at(0, 3)).state.filled == 2


def test_restart_begins_with_a_fresh_state_and_keeps_the_number(hourly):
    hourly.send(8, 8, 8, times=at(0, 1, 2))
    answer = hourly.send(6, times=at(5), gap="restart")
    assert (answer.state.status, answer.state.reason, answer.state.context, answer.step) == ("restarted", "gap", 1, 4)
    assert answer.y[0, 0, 0] == 3
    assert answer.previous is None


def test_reject_refuses_and_says_how_much_is_missing(hourly):
    hourly.send(8, times=at(0))
    before = hourly.stored()
    with pytest.raises(OrderConflict) as refused:
        hourly.send(6, times=at(3), gap="reject")
    assert (refused.value.code, refused.value.extra) == ("gap", {"expected_step": 2, "missing": 2})
    assert hourly.stored() == before


def test_a_gap_beyond_the_limit_restarts(hourly):
    hourly.send(8, times=at(0))
    assert hourly.send(6, times=at(25)).state.filled == 24
    assert hourly.send(6, times=at(51)).state.reason == "gap"


def test_a_model_that_does_not_predict_its_features_restarts_by_default_and_refuses_to_fill():
    desk = Desk(make_spec(("a", "b"), predicts=("a",), interval_s=HOUR))
    desk.engine.step = lambda x, s: (np.stack((s[:, :1],) * 3, -1), s)
    desk.send((1, 2), times=at(0))
    with pytest.raises(Unsupported, match="does not predict: b"):
        desk.send((1, 2), times=at(3), gap="fill")
    assert desk.send((1, 2), times=at(3)).state.reason == "gap"


def test_small_jitter_is_no_gap(hourly):
    hourly.send(8, times=at(0))
    assert hourly.send(6, times=at(1.4)).state.filled == 0


def test_a_time_not_after_the_last_or_too_soon_is_a_conflict(hourly):
    hourly.send(8, times=at(1))
    for code, hour in (("time_conflict", 1), ("time_conflict", 0), ("too_soon", 1.4)):
        before = hourly.stored()
        with pytest.raises(OrderConflict) as refused:
            hourly.send(6, times=at(hour))
        assert (refused.value.code, refused.value.extra["expected_step"]) == (code, 2)
        assert hourly.stored() == before


@pytest.mark.parametrize(
    ("times", "field"),
    [
        ((NOW + 3 * HOUR,), "time"),
        ((float("nan"),), "time"),
        (at(0, 0), r"times\[1\]"),
        (at(0, 0.4), r"times\[1\]"),
        (at(1, 0), r"times\[1\]"),
    ],
)
def test_times_wrong_in_themselves_name_the_field(hourly, times, field):
    with pytest.raises(InvalidInput, match=f"^{field}:"):
        hourly.send(*[1] * len(times), times=times)
    assert hourly.stored() is None


def test_the_future_is_allowed_up_to_two_intervals(hourly):
    assert hourly.send(1, times=(NOW + 2 * HOUR,)).step == 1


def test_without_an_interval_only_the_order_counts(desk):
    desk.send(1, times=(T0,))
    assert desk.send(1, times=(T0 + 1e5,)).state.filled == 0
    with pytest.raises(OrderConflict):
        desk.send(1, times=(T0,), step=3)


def test_without_times_a_client_moves_on_by_the_interval(hourly):
    hourly.send(1, times=at(0))
    hourly.send(1)
    assert hourly.predictor.inspect(hourly.key).last_time == T0 + HOUR
    assert hourly.send(1, times=at(2)).state.filled == 0


def test_an_expired_client_restarts_as_expired_not_for_its_gap(hourly):
    hourly.clock.now = T0
    hourly.send(1, times=at(0))
    hourly.clock.now = T0 + 10 * 86400
    answer = hourly.send(2, times=(T0 + 10 * 86400,), gap="reject")
    assert (answer.state.reason, answer.state.last_seen) == ("expired", T0)


def test_guessed_times_never_run_ahead_of_the_clock(hourly):
    hourly.send(1, times=(NOW - HOUR,))
    for value in range(5):
        hourly.send(value)
    assert hourly.predictor.inspect(hourly.key).last_time == NOW
    hourly.clock.now = NOW + HOUR
    assert hourly.send(1, times=(NOW + HOUR,)).state.filled == 0


def test_without_an_interval_a_request_without_time_keeps_the_order(desk):
    desk.send(1, times=(T0,))
    desk.send(2)
    with pytest.raises(OrderConflict):
        desk.send(3, times=(T0 - 1,))


def test_after_an_expiry_without_time_the_next_time_starts_afresh(hourly):
    hourly.send(1, times=(NOW,))
    hourly.clock.now = NOW + 10 * 86400
    assert hourly.send(2).state.reason == "expired"
    answer = hourly.send(3, times=(hourly.clock.now,))
    assert (answer.state.status, answer.state.filled) == ("carried", 0)


def test_a_gap_inside_an_expired_clients_request_does_not_hide_the_expiry(hourly):
    hourly.clock.now = T0
    hourly.send(1, times=at(0))
    hourly.clock.now = NOW = T0 + 30 * 86400
    answer = hourly.send(1, 2, times=(NOW - 100 * HOUR, NOW))
    assert (answer.state.status, answer.state.reason, answer.state.context) == ("restarted", "expired", 1)


def test_what_one_request_fills_is_bounded(hourly):
    """Every observation 24 steps after the last: a few bytes each would cost 24 steps each."""
    hours = range(-25 * 400, 0, 25)
    with pytest.raises(InvalidInput, match=r"times: .* one request fills"):
        hourly.send(*[1] * 400, times=at(*hours))
    assert hourly.stored() is None
    assert hourly.send(*[1] * 400, times=at(*hours), gap="restart").state.context == 1
