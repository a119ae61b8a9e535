"""Absorbing observations: the state is the closed form's at every step, all or nothing."""

import threading
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import ClientNotFound, InvalidInput, ModelNotFound, NotReady
from service.core.predictor import LONG_HISTORY, Predictor
from service.core.registry import Registry
from service.core.types import ClientKey, FeatureSpec
from service.stores import open_store
from tests.desk import Desk, request
from tests.fakes import LeakyIntegrator, make_spec


def closed_form(values, leak=0.5):
    return sum((1 - leak) * leak ** (len(values) - 1 - i) * value for i, value in enumerate(values))


values = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12)


@given(values, st.data())
def test_any_split_into_requests_gives_the_closed_form_at_every_step(series, data):
    desk, at = Desk(make_spec()), 0
    while at < len(series):
        n = data.draw(st.integers(1, len(series) - at))
        answer = desk.send(*series[at : at + n])
        for i in range(n):
            expected = closed_form(series[: at + i + 1])
            assert answer.y[i, 0, 0] == pytest.approx(expected, abs=1e-4)
        at += n
        assert answer.step == at == answer.state.context


@given(values, values, st.lists(st.booleans(), max_size=30))
def test_two_interleaved_clients_are_each_as_alone(first, second, turns):
    desk = Desk(make_spec())
    keys = [desk.key, desk.key._replace(client="other")]
    todo = [list(first), list(second)]
    for turn in [*turns, *[False] * len(first), *[True] * len(second)]:
        if todo[turn]:
            value = todo[turn].pop(0)
            answer = desk.predictor.predict(keys[turn], request(value))
            whole = (second if turn else first)[: answer.step]
            assert answer.y[-1, 0, 0] == pytest.approx(closed_form(whole), abs=1e-4)


def test_the_first_answer_says_started_and_the_next_carried(desk):
    assert (desk.send(1).state.status, desk.send(2).state.status) == ("started", "carried")


def test_priming_ends_in_the_state_that_stepping_reaches(desk):
    desk.prime(1, 2, 3)
    primed = desk.send(4)
    stepped = Desk(make_spec())
    for value in (1, 2, 3):
        stepped.send(value)
    assert primed.y.tolist() == stepped.send(4).y.tolist()
    assert primed.step == 4


def test_priming_begins_anew_at_the_step_it_names(desk):
    desk.send(1, 2, 3)
    answer = desk.prime(7, 8, step=100)
    assert (answer.step, answer.state.status, answer.state.context) == (101, "started", 2)
    assert desk.send(9, step=102).step == 102


def test_long_histories_take_turns_and_short_ones_do_not_wait():
    slices, begun, short_is_done = [], threading.Event(), threading.Event()

    class Watched(LeakyIntegrator):
        def walk(self, x, state):
            if len(x) > 1:  # of a long history
                slices.append(threading.get_ident())
                begun.set()
                assert short_is_done.wait(30)
            y, state = self.step(x[-1:], state)
            return np.repeat(y, len(x), axis=0), state

    desk = Desk(make_spec(), engine=Watched())
    keys = [desk.key._replace(client=name) for name in ("one", "two")]
    long_one = request(*range(LONG_HISTORY + 1))
    threads = [threading.Thread(target=desk.predictor.prime, args=(key, long_one)) for key in keys]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    assert desk.prime(7).step == 1
    short_is_done.set()
    for thread in threads:
        thread.join(30)
    assert [desk.predictor.inspect(key).step for key in keys] == [LONG_HISTORY + 1] * 2
    assert [len(list(turn)) for _, turn in groupby(slices)] == [len(slices) // 2] * 2


def test_nothing_moves_when_one_observation_of_many_is_bad():
    desk = Desk(make_spec())
    desk.send(1)
    before = desk.stored()
    with pytest.raises(InvalidInput, match="not finite"):
        desk.send(1, float("inf"), 2)
    assert desk.stored() == before


def test_a_state_driven_out_of_range_is_refused_and_nothing_moves():
    desk = Desk(make_spec(), engine=LeakyIntegrator(leak=-3.0))
    desk.send(8e37)
    before = desk.stored()
    with np.errstate(over="ignore"), pytest.raises(InvalidInput) as refused:
        desk.send(-8e37)
    assert refused.value.code == "not_finite"
    assert desk.stored() == before


def test_a_wrong_width_names_the_field(desk):
    with pytest.raises(InvalidInput, match="observations"):
        desk.send((1.0, 2.0))


@pytest.mark.parametrize(("value", "why"), [(-300.0, "below its minimum"), (101.0, "above its maximum")])
def test_a_value_beyond_physical_limits_names_the_feature(value, why):
    desk, limited = Desk(make_spec()), Desk(replace(make_spec(), features=(FeatureSpec("a", "K", -273, 100),)))
    assert desk.send(value).step == 1
    with pytest.raises(InvalidInput, match=f"a: .* {why}"):
        limited.send(value)
    assert limited.stored() is None


def test_an_unknown_model_is_named_and_an_empty_service_is_not_ready(desk):
    with pytest.raises(ModelNotFound, match="nope"):
        desk.predictor.predict(ClientKey("default", "nope", "c"), request(1))
    empty = Predictor(Registry(), open_store("memory://"))
    with pytest.raises(NotReady):
        empty.predict(desk.key, request(1))


def test_a_forgotten_client_begins_anew(desk):
    desk.send(1, 2)
    assert desk.predictor.forget(desk.key)
    assert not desk.predictor.forget(desk.key)
    with pytest.raises(ClientNotFound):
        desk.predictor.inspect(desk.key)
    assert desk.send(5).step == 1


def test_inspecting_tells_what_stands_behind_the_state(desk):
    desk.send(1, 2, 3)
    view = desk.predictor.inspect(desk.key)
    assert (view.step, view.context, view.context_kept, view.version, view.label) == (3, 3, 3, 1, "stable")
    assert view.record_bytes == len(desk.stored())
    assert view.expires == desk.clock.now + 7 * 86400


def test_the_context_keeps_the_last_observations_only():
    desk = Desk(make_spec(context_length=4))
    desk.send(*range(10))
    view = desk.predictor.inspect(desk.key)
    assert (view.context, view.context_kept) == (10, 4)


def test_gates_cover_the_last_observations_of_the_context(desk):
    desk.send(1, 2, 3)
    trace = desk.predictor.gates(desk.key, 2)
    assert trace.observations.ravel().tolist() == [2, 3]
    (layer,) = trace.activations
    assert layer.shape == (2, 2, 1)
    assert layer[:, 0, 0].tolist() == pytest.approx([closed_form([1]), closed_form([1, 2])])
    assert layer[:, 1, 0].tolist() == [2, 3]
