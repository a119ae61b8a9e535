"""The common step makes the record and the answer of the long way, byte for byte, and leaves all else to it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core import parts
from service.core.errors import RecurveError
from service.core.predictor import Limits, Predictor
from service.core.record import decode, encode
from service.core.registry import Served, ServedModel
from tests.desk import HOUR, Desk, request
from tests.fakes import LeakyIntegrator, make_spec

DAY = 24 * HOUR


class LongWay(Predictor):
    """A Predictor that takes no short cut."""

    def _carry(self, *_, **__):
        return None


class Counting(Predictor):
    """A Predictor that counts its common steps."""

    carried = 0

    def _carry(self, *args, **more):
        found = super()._carry(*args, **more)
        self.carried += found is not None
        return found


class Pair:
    """The same client at two predictors, the one with common steps, the other without."""

    def __init__(self, spec, limits=None, engine=None):
        self.short, self.long = Desk(spec, limits, engine), Desk(spec, limits, engine)
        self.short.predictor = Counting(self.short.registry, self.short.store, self.short.clock, limits or Limits())
        self.long.predictor = LongWay(self.long.registry, self.long.store, self.long.clock, limits or Limits())

    @property
    def carried(self):
        return self.short.predictor.carried

    def wait(self, seconds):
        self.short.clock.now += seconds
        self.long.clock.now += seconds

    def serve(self, *args):
        for desk in (self.short, self.long):
            desk.registry.replace({desk.spec.name: ServedModel(*args)})

    def send(self, *values, **more):
        """The request to both; what they say, which is the same, and so is what they keep."""
        said = []
        for desk in (self.short, self.long):
            try:
                said.append(desk.predictor.predict(desk.key, request(*values, **more)))
            except RecurveError as error:
                said.append((type(error), str(error)))
        assert plain(said[0]) == plain(said[1])
        assert self.short.stored() == self.long.stored()
        return said[0]

    def prime(self, *values, **more):
        assert plain(self.short.prime(*values, **more)) == plain(self.long.prime(*values, **more))
        assert self.short.stored() == self.long.stored()


def plain(said):
    """An answer as plain values that compare, arrays with their types."""
    if isinstance(said, np.ndarray):
        return said.dtype.str, said.shape, said.tobytes()
    if isinstance(said, tuple):
        return tuple(map(plain, said))
    if dataclasses.is_dataclass(said) and not hasattr(said, "fingerprint"):
        return type(said), *(plain(getattr(said, field.name)) for field in dataclasses.fields(said))
    return said


VALUE = st.floats(-50, 50, width=32)
ACTION = st.one_of(
    st.tuples(st.just("send"), st.tuples(VALUE, VALUE)),
    st.tuples(st.just("numbered"), st.tuples(VALUE, VALUE), st.integers(-2, 1)),
    st.tuples(st.just("keyed"), st.tuples(VALUE, VALUE), st.integers(0, 5)),
    st.tuples(st.just("timed"), st.tuples(VALUE, VALUE), st.sampled_from([0, 0.4, 1, 1, 1, 1.4, 1.6, 3, 40])),
    st.tuples(st.just("several"), st.lists(st.tuples(VALUE, VALUE), min_size=2, max_size=4)),
    st.tuples(st.just("ahead"), st.tuples(VALUE, VALUE)),
    st.tuples(st.just("prime"), st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=12)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, HOUR, 8 * DAY])),
    st.tuples(st.just("labels"), st.sampled_from(["again", "older", "candidate", "alone", "updated", "longer"])),
)


@settings(max_examples=150)
@given(st.lists(ACTION, min_size=1, max_size=40), st.booleans(), st.sampled_from([HOUR, None]))
def test_every_request_leaves_the_same_record_and_answer_as_the_long_way(actions, adaptive, interval_s):
    spec = make_spec(("a", "b"), interval_s=interval_s)
    pair = Pair(spec, Limits(adaptive_intervals=adaptive))
    engine, generation, time = pair.short.engine, 1, pair.short.clock.now
    other = dataclasses.replace(spec, version=2, fingerprint="11" * 32)
    longer = dataclasses.replace(spec, version=3, fingerprint="22" * 32, context_length=11)
    now = spec
    for what, *how in actions:
        if what == "send":
            pair.send(how[0])
        elif what == "numbered":
            stored = pair.short.stored()
            step = 1 if stored is None else decode(pair.short.key, stored).step + 1
            pair.send(how[0], step=max(1, step + how[1]))
        elif what == "keyed":
            pair.send(how[0], idempotency_key=f"key-{how[1]}")
        elif what == "timed":
            time += how[1] * HOUR
            pair.wait(max(0.0, time - pair.short.clock.now))
            pair.send(how[0], times=(time,))
        elif what == "several":
            pair.send(*how[0])
        elif what == "ahead":
            pair.send(how[0], horizon=3)
        elif what == "prime":
            pair.prime(*how[0])
        elif what == "wait":
            pair.wait(how[0])
        else:
            versions = {s.version: Served(s, engine, {}) for s in (spec, other, longer)}
            generation += 1 if how[0] != "older" else -1
            if how[0] in ("updated", "longer"):
                now = other if how[0] == "updated" else longer
            labels = {"stable": now.version}
            if how[0] == "candidate":
                labels["candidate"] = other.version
            pair.serve(spec.name, max(1, generation), labels, versions)


def test_all_but_the_first_of_a_clients_steps_are_common_ones():
    pair = Pair(make_spec(("a", "b"), interval_s=HOUR), Limits(adaptive_intervals=True))
    for i in range(60):
        pair.wait(HOUR)
        pair.send((i, -i), step=i + 1, times=(pair.short.clock.now,), idempotency_key=f"k{i}")
    assert pair.carried == 59


@pytest.mark.parametrize("predicts", [("b",), ("b", "c"), ("z", "a")])
def test_models_that_predict_other_than_what_they_see_step_alike(predicts):
    """Some features, or one that nobody observes; the engine here answers as many targets as it is asked for."""

    class Some(LeakyIntegrator):
        def step(self, x, state):
            y, following = super().step(x, state)
            return y[:, : len(predicts)], following

    pair = Pair(make_spec(("a", "b", "c"), predicts=predicts), Limits(adaptive_intervals=True), Some())
    for i in range(30):
        pair.send((i, i * i % 7, -i))
    assert pair.carried == 29


@pytest.mark.parametrize("more", [{"interval_columns": None}, {"interval_columns": None, "residuals": None}])
def test_intervals_from_residuals_and_none_at_all_step_alike(more):
    pair = Pair(make_spec(("a",), **more), Limits(adaptive_intervals=True))
    for i in range(30):
        pair.send(i * i % 11)
    assert pair.carried == 29


def test_records_of_more_shapes_than_are_kept_step_all_the_same(monkeypatch):
    """A record of each of a growing context's lengths, the shapes known before let go again and again."""
    monkeypatch.setattr(parts, "_MOST_SHAPES", 2)
    pair = Pair(make_spec(("a", "b")))
    pair.send((0.0, 1.0), (1.0, 0.0), (2.0, 2.0))  # an answer of three rows is a shape of its own
    for i in range(40):
        pair.send((float(i % 7), float(i % 5)))
    assert pair.carried == 40


def test_a_damaged_record_is_no_common_step():
    pair = Pair(make_spec(("a",)))
    for i in range(3):
        pair.send(i)
    whole = pair.short.stored()
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        for desk in (pair.short, pair.long):
            assert desk.store.save(desk.key, desk.store.load(desk.key).nonce, b"damaged.", flipped)
            desk.store.delete(desk.key._replace(tenant="~quarantine"))
        before = pair.carried
        assert pair.send(7.0, step=9).state.reason == "corrupt"
        assert pair.carried == before


def test_a_state_that_leaves_the_numbers_is_refused_and_nothing_moves():
    class Running(LeakyIntegrator):
        def step(self, x, state):
            y, following = super().step(x, state)
            return (y, following * np.float32(np.inf)) if x[0, 0] > 5 else (y, following)

    pair = Pair(make_spec(("a",)), engine=Running())
    pair.send(1.0)
    kept = pair.short.stored()
    with np.errstate(invalid="ignore"):
        _, said = pair.send(9.0)
    assert "float32" in said
    assert pair.short.stored() == kept
    large = decode(pair.short.key, kept)
    track = dataclasses.replace(large.tracks[0], state=np.full(1, 3e38, np.float32))
    blob = encode(pair.short.key, dataclasses.replace(large, tracks=(track,)))
    for desk in (pair.short, pair.long):
        assert desk.store.save(desk.key, desk.store.load(desk.key).nonce, b"large...", blob)
    assert pair.send(2.0).step == 2
    assert pair.carried == 0  # its square is beyond float32: the long way looks closer
