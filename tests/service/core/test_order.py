"""A retry is free; a gap, a late step or a reused key is named; nothing refused moves anything."""

import numpy as np
import pytest

from service.core.errors import OrderConflict
from tests.desk import Desk
from tests.fakes import make_spec

NOW = 1_700_000_000.0


def refused(desk, code, *values, **more):
    """The conflict that `values` meet, after asserting that nothing moved."""
    before = desk.stored()
    with pytest.raises(OrderConflict) as caught:
        desk.send(*values, **more)
    assert caught.value.code == code
    assert desk.stored() == before
    return caught.value.extra


def same_answer(a, b):
    assert b.replayed
    assert not a.replayed
    assert (a.step, a.version, a.state) == (b.step, b.version, b.state)
    assert a.y.tolist() == b.y.tolist()
    assert (a.previous is None) == (b.previous is None)
    if a.previous is not None:
        assert a.previous.predicted.tolist() == b.previous.predicted.tolist()
        assert a.previous.observed.tolist() == b.previous.observed.tolist()


@pytest.mark.parametrize("first", [{"step": 2}, {"idempotency_key": "k"}, {"times": (NOW - 10,)}])
def test_the_same_request_again_gets_the_same_answer_and_nothing_moves(desk, first):
    desk.send(1, times=(NOW - 20,) if "times" in first else None)
    answer = desk.send(5, **first)
    before = desk.stored()
    steps = desk.engine.steps
    same_answer(answer, desk.send(5, **first))
    assert desk.stored() == before
    assert desk.engine.steps == steps


def test_the_first_request_of_a_client_may_be_repeated(desk):
    same_answer(desk.send(5, step=1), desk.send(5, step=1))


def test_a_retry_of_several_observations_gets_every_prediction_again(desk):
    same_answer(desk.send(1, 2, 3, step=1), desk.send(1, 2, 3, step=1))


def test_a_retry_may_ask_to_look_ahead(desk):
    desk.send(1, step=1)
    assert desk.send(1, step=1, horizon=3).ahead.shape == (3, 1, 3)


def test_equal_values_without_step_key_or_time_are_two_observations(desk):
    assert (desk.send(5).step, desk.send(5).step) == (1, 2)


def test_an_older_request_again_is_already_absorbed_with_its_step(desk):
    desk.send(1, step=1, idempotency_key="a", times=(NOW - 30,))
    desk.send(2, step=2, idempotency_key="b", times=(NOW - 20,))
    desk.send(3, step=3, idempotency_key="c", times=(NOW - 10,))
    assert refused(desk, "already_absorbed", 1, step=1, times=(NOW - 30,)) == {"expected_step": 4, "step": 1}
    assert refused(desk, "already_absorbed", 1, idempotency_key="a", times=(NOW - 30,))["step"] == 1
    assert refused(desk, "already_absorbed", 2, times=(NOW - 20,))["step"] == 2


def test_beyond_32_requests_the_step_still_protects(desk):
    for i in range(40):
        desk.send(i, step=i + 1)
    assert refused(desk, "step_conflict", 0, step=1) == {"expected_step": 41}


@pytest.mark.parametrize(("step", "value"), [(2, 99), (1, 1.5), (4, 3)])
def test_a_step_with_other_values_behind_or_ahead_names_the_expected_one(desk, step, value):
    desk.send(1, step=1)
    desk.send(2, step=2)
    assert refused(desk, "step_conflict", value, step=step) == {"expected_step": 3}


def test_a_new_client_begins_at_step_1(desk):
    assert refused(desk, "step_conflict", 1, step=5) == {"expected_step": 1}
    assert desk.send(1, step=1).step == 1


def test_a_key_used_for_another_request_is_refused(desk):
    desk.send(1, idempotency_key="k")
    assert refused(desk, "key_conflict", 2, idempotency_key="k") == {"expected_step": 2}


def test_a_retry_after_a_restarted_client_keeps_its_number():
    desk = Desk(make_spec())
    desk.send(1, step=1)
    desk.clock.now += 8 * 86400
    answer = desk.send(2, step=2)
    assert (answer.state.status, answer.state.reason, answer.step) == ("restarted", "expired", 2)
    assert answer.state.last_seen == NOW
    same_answer(answer, desk.send(2, step=2))


def test_the_gap_policy_is_part_of_what_a_retry_repeats(desk):
    desk.send(1, step=1, gap="fill")
    assert refused(desk, "step_conflict", 1, step=1, gap="restart") == {"expected_step": 2}


def test_the_digest_is_over_float32_values(desk):
    desk.send(0.1, step=1)
    assert desk.send(float(np.float32(0.1)), step=1).replayed


def test_a_key_used_again_for_another_step_is_refused(desk):
    """A constant series with a stuck key: equal values, another step. Nothing may be lost under a 200."""
    desk.send(5, step=1, idempotency_key="k")
    assert refused(desk, "key_conflict", 5, step=2, idempotency_key="k") == {"expected_step": 2}


def test_requests_of_other_shapes_never_share_a_digest(desk):
    """The bytes of one observation and its time read as an observation more must not pass for a retry."""
    time = np.frombuffer(np.array([1699999000.0], "<f8").tobytes(), "<f4")
    desk.send(5, step=1, times=(1699999000.0,))
    assert refused(desk, "step_conflict", 5, *time.tolist(), step=1) == {"expected_step": 2}


def test_minus_zero_is_zero(desk):
    desk.send(-0.0, step=1)
    assert desk.send(0.0, step=1).replayed
