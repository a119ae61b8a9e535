"""A whole series at once ends where one observation at a time ends, with the same bits: histories and contexts too."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.repository import Repository
from service.core.absorb import Progress, fresh, rebuild
from service.core.ports import Walks
from service.core.predictor import Limits
from service.core.record import decode
from service.core.requests import PredictRequest
from service.core.series import SLICE
from service.engines import open_engine
from service.specs import spec_of
from tests.desk import HOUR, Desk

SERIES = np.random.default_rng(3).normal([10, 5, 1010], [9, 7, 8], (700, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def spec(tiny_repository):
    return spec_of(Repository(tiny_repository).verify("tiny", 1), 1)


@pytest.fixture(scope="module", params=["litert", "tensorflow"])
def engine(request, tiny_repository, spec):
    return open_engine(Repository(tiny_repository).bundle("tiny", 1), spec, request.param)


def one_by_one(engine, spec, series):
    ys, state = [], spec.initial_state[None]
    for row in series:
        y, state = engine.step(row[None], state)
        ys.append(y[0])
    return np.array(ys), state


def same_bits(one, other):
    return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


@pytest.mark.parametrize("length", [1, 2, 300])
def test_a_walk_is_as_many_steps_to_the_bit(engine, spec, length):
    assert isinstance(engine, Walks)
    series = SERIES[:length]
    series.flags.writeable = False  # as a record's context is
    walked, stepped = engine.walk(series, spec.initial_state[None]), one_by_one(engine, spec, series)
    assert all(map(same_bits, walked, stepped))


def test_what_a_walk_returns_is_not_overwritten_by_the_next(engine, spec):
    first = engine.walk(SERIES[:5], spec.initial_state[None])
    kept = [array.copy() for array in first]
    engine.walk(SERIES[5:10], spec.initial_state[None])
    assert all(map(same_bits, first, kept))


def record_of(desk):
    return decode(desk.key, desk.stored())


steps = st.integers(1, 7)  # hours from one observation to the next; 5 and more are too many to fill


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hours=st.lists(steps, min_size=1, max_size=40), policy=st.sampled_from(["fill", "restart", None]), data=st.data()
)
def test_a_history_with_gaps_ends_as_the_same_observations_sent_in_pieces(engine, spec, hours, policy, data):
    primed, sent = (Desk(spec, Limits(max_gap=3), engine) for _ in range(2))
    series = SERIES[: len(hours)]
    times = tuple((primed.clock.now - 1000 * HOUR + HOUR * np.cumsum(hours)).tolist())
    primed.predictor.prime(primed.key, PredictRequest(series, times, gap=policy))
    at = 0
    while at < len(series):
        n = data.draw(st.integers(1, len(series) - at))
        sent.predictor.predict(sent.key, PredictRequest(series[at : at + n], times[at : at + n], gap=policy))
        at += n
    ours, theirs = record_of(primed), record_of(sent)
    for one, other in zip(ours.tracks, theirs.tracks, strict=True):
        assert same_bits(one.state, other.state)
        assert same_bits(one.y, other.y)
    assert same_bits(ours.context, theirs.context)
    assert (ours.step, ours.behind, ours.last_time) == (theirs.step, theirs.behind, theirs.last_time)


def test_a_long_history_ends_as_one_step_at_a_time_ends(engine, spec):
    assert len(SERIES) > 2 * SLICE
    desk = Desk(spec, engine=engine)
    desk.predictor.prime(desk.key, PredictRequest(SERIES))
    ys, state = one_by_one(engine, spec, SERIES)
    record = record_of(desk)
    assert same_bits(record.tracks[0].state, state[0])
    assert same_bits(record.tracks[0].y, ys[-1])
    assert same_bits(record.context, SERIES[-spec.context_length :])
    assert record.behind == len(SERIES)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), max_size=60))
def test_a_context_with_missing_rows_is_rebuilt_as_step_by_step(engine, spec, blanks):
    context = SERIES[: len(blanks) + 1].copy()
    context[:-1][blanks] = np.nan
    stepped: Progress = fresh(spec, engine, "rebuilt")
    for row in context:
        if np.isnan(row[0]):
            stepped.fill(1)
        else:
            stepped.step(row[None])
    rebuilt = rebuild(spec, engine, context, "model_updated")
    assert same_bits(rebuilt.batch, stepped.batch)
    assert same_bits(rebuilt.y, stepped.y)
    assert same_bits(rebuilt.context(512), stepped.context(512))
    assert (rebuilt.behind, rebuilt.status, rebuilt.filled, rebuilt.outputs) == (stepped.behind, "rebuilt", 0, [])
