"""While there is a candidate each step runs under it too: unseen, compared, and carried on when it is promoted."""

import logging
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from service.core import shadow
from service.core.mover import Mover
from service.core.patience import WouldWait, hurried
from service.core.predictor import Limits
from service.core.record import decode
from service.core.registry import Served, ServedModel
from service.core.shadow import CLIP, difference, spreads
from tests.desk import HOUR, Desk, request
from tests.fakes import LeakyIntegrator, make_spec

BOTH = {"stable": 1, "candidate": 2}
PROMOTED = {"stable": 2, "previous": 1}


class Diverging(LeakyIntegrator):
    """No number any more once it has met a value above ten."""

    def step(self, x, state):
        y, following = super().step(x, state)
        return (y * np.float32(np.nan), following) if (x > 10).any() else (y, following)


class Raising(LeakyIntegrator):
    """Its runtime breaks down at a value above ten."""

    def step(self, x, state):
        if (x > 10).any():
            raise RuntimeError("no kernel for this")
        return super().step(x, state)


class Wide(LeakyIntegrator):
    """A state of three numbers and a prediction of one column: another network, and no quantiles."""

    def step(self, x, state):
        y, following = super().step(x, state[:, :1])
        return np.ascontiguousarray(y[..., :1]), np.repeat(following, 3, axis=1)


class Pair(Desk):
    """A desk where version 1 is served, leak 0.5, and version 2 may be a candidate, leak 0.25 unless said otherwise."""

    def __init__(self, candidate=None, labels=None, *, spec2=None, limits=None, **spec):
        super().__init__(make_spec(**spec), limits)
        self.other = LeakyIntegrator(0.25) if candidate is None else candidate
        self.spec2 = make_spec(version=2, fingerprint="11", **{**spec, **(spec2 or {})})
        self.generation = 0
        self.label(BOTH if labels is None else labels)

    def label(self, labels):
        both = {1: Served(self.spec, self.engine, {}), 2: Served(self.spec2, self.other, {})}
        self.generation += 1
        model = ServedModel(self.spec.name, self.generation, labels, {n: both[n] for n in set(labels.values())})
        self.registry.replace({self.spec.name: model})

    def record(self):
        return decode(self.key, self.stored())

    def track(self):
        return self.record().tracks[1]


def alone(leak, *values, **more):
    """What a client answers whose whole life was under one leak."""
    return Desk(make_spec(**more), engine=LeakyIntegrator(leak)).send(*values)


def test_the_second_track_is_what_the_candidate_alone_would_have_made_of_the_same_observations():
    pair = Pair()
    for value in (1, 2, 3, 4):
        pair.send(value)
    assert pair.track().fingerprint == "11" * 32
    assert pair.track().y.tolist() == alone(0.25, 1, 2, 3, 4).y[-1].tolist()
    assert pair.track().sums[3] == 4


@pytest.mark.parametrize("candidate", [LeakyIntegrator(0.25), Diverging(0.25), Raising(0.25)])
def test_answers_are_the_same_to_the_bit_whatever_the_candidate_does(candidate):
    rng = np.random.default_rng(7)
    more = {"interval_s": HOUR, "limits": Limits(adaptive_intervals=True)}
    with_one, without = Pair(candidate, **more), Pair(labels={"stable": 1}, **more)
    time = with_one.clock.now - 2000 * HOUR
    for i in range(60):
        size = int(rng.integers(1, 4))
        values = [20.0] if i % 17 == 16 else rng.normal(size=size).round(2).tolist()
        gap = int(rng.choice([0, 0, 0, 2, 40]))
        times = tuple(time + (gap + 1 + k) * HOUR for k in range(len(values)))
        time = times[-1]
        answers = [desk.send(*values, times=times, horizon=3) for desk in (with_one, without)]
        for name in ("y", "interval", "ahead"):
            assert getattr(answers[0], name).tobytes() == getattr(answers[1], name).tobytes()
        assert answers[0].state == answers[1].state
    views = [desk.predictor.inspect(desk.key) for desk in (with_one, without)]
    assert views[0].live == views[1].live
    assert (with_one.record().tracks[0].state.tobytes()) == without.record().tracks[0].state.tobytes()


def test_each_scored_observation_is_compared_and_the_first_is_not():
    pair = Pair(residuals=None)
    assert pair.send(8).paired is None
    answer = pair.send(6)
    # told 4 (leak 0.5), shadow 6 (leak 0.25): errors 2 and 0, scale 1
    assert answer.paired == shadow.Paired("11" * 32, 1, 4 / CLIP)
    assert pair.track().sums == (1, 1.0, 1.0, 2)
    answer = pair.send(5, 5, 5)
    assert answer.paired.steps == 3
    assert pair.track().sums[0] == 4
    assert pair.track().sums[1] == pytest.approx(1 + answer.paired.sum)


def test_observations_of_one_request_compare_as_one_by_one():
    rng = np.random.default_rng(3)
    values = rng.normal(size=40).round(2).tolist()
    one, many = Pair(), Pair()
    total = sum(answer.paired.sum for answer in map(one.send, values) if answer.paired is not None)
    answer = many.send(*values)
    assert (answer.paired.steps, answer.paired.sum) == (39, pytest.approx(total))
    assert many.track().sums == pytest.approx(one.track().sums)
    assert many.track().state.tolist() == one.track().state.tolist()


def test_the_difference_is_a_mean_over_observed_targets_in_their_own_spreads_and_bounded():
    spec = make_spec(("a", "b", "c"), predicts=("a", "c", "d"), residuals=None)
    x, told = np.array([1, 2, 3], np.float32), np.array([2, 5, 100], np.float32)
    near = np.array([1, 4, -100], np.float32)
    # a: (1 - 0) / 1, c: (4 - 1) / 4; d is observed by no feature
    assert difference(spec, [1.0, 2.0, 1.0], told, near, x) == pytest.approx((1 + 3 / 4) / 2 / CLIP)
    assert difference(spec, [1e-3, 1e-3, 1.0], told, near, x) == 1.0
    assert difference(spec, [1e-3, 1e-3, 1.0], near, told, x) == -1.0
    assert difference(spec, [1.0, 1.0, 1.0], told, told, x) == 0.0
    huge = np.full(3, np.finfo(np.float32).max)
    assert difference(spec, spreads(make_spec(("a", "b", "c"), predicts=("a", "c", "d"))), huge, -huge, x) is not None
    blind = make_spec(("a",), predicts=("b",))
    assert difference(blind, [1.0], told[:1], near[:1], x[:1]) is None


def test_the_spread_is_that_of_the_hold_out_residuals_else_the_targets_own():
    z = NormalDist().inv_cdf(0.95)
    assert spreads(make_spec()) == pytest.approx([1 / z])
    assert spreads(make_spec(residuals=None)) == [1.0]
    assert spreads(make_spec(residuals=np.zeros((4, 1, 2), np.float32))) == [1.0]


def test_a_retry_moves_neither_track_and_compares_nothing():
    pair = Pair()
    pair.send(1, step=1)
    pair.send(2, step=2)
    before, engine_steps = pair.stored(), pair.other.steps
    again = pair.send(2, step=2)
    assert (again.replayed, again.paired, pair.stored(), pair.other.steps) == (True, None, before, engine_steps)


def test_a_track_is_rebuilt_from_the_context_when_a_candidate_appears_and_compared_from_its_second_step_on():
    pair = Pair(labels={"stable": 1})
    pair.send(1, 2, 3)
    pair.label(BOTH)
    assert pair.send(4).paired is None
    assert pair.track().y.tolist() == alone(0.25, 1, 2, 3, 4).y[-1].tolist()
    assert pair.track().sums[3] == 4
    assert pair.send(5).paired.steps == 1
    pair.label({"stable": 1})
    pair.send(5)
    assert len(pair.record().tracks) == 1


def test_a_rebuild_is_never_done_where_nobody_may_wait():
    pair = Pair(labels={"stable": 1})
    pair.send(1)
    pair.label(BOTH)
    before = pair.stored()
    with hurried(), pytest.raises(WouldWait):
        pair.send(2)
    assert pair.stored() == before
    pair.send(2)
    with hurried():
        assert pair.send(3).paired.steps == 1


def test_another_candidate_gets_a_track_of_its_own_and_equal_weights_none():
    pair = Pair()
    pair.send(1, 2)
    pair.spec2, pair.other = make_spec(version=2, fingerprint="22"), LeakyIntegrator(0.75)
    pair.label(BOTH)
    pair.send(3)
    assert pair.track().y.tolist() == alone(0.75, 1, 2, 3).y[-1].tolist()
    assert pair.track().sums[0] == 0
    pair.spec2 = make_spec(version=2, fingerprint="00")
    pair.label(BOTH)
    pair.send(4)
    assert len(pair.record().tracks) == 1


@pytest.mark.parametrize("policy", ["fill", "restart"])
def test_a_gap_is_bridged_by_each_track_on_its_own_and_not_compared(policy):
    pair = Pair(interval_s=HOUR)
    only = Desk(make_spec(interval_s=HOUR), engine=LeakyIntegrator(0.25))
    t0 = pair.clock.now - 100 * HOUR
    for desk in (pair, only):
        desk.send(8, 6, times=(t0, t0 + HOUR))
    times = (t0 + 4 * HOUR, t0 + 5 * HOUR)
    answer = pair.send(5, 3, times=times, gap=policy)
    assert answer.paired.steps == 1
    assert pair.track().y.tolist() == only.send(5, 3, times=times, gap=policy).y[-1].tolist()
    assert pair.track().sums[3] == (4 if policy == "fill" else 2)


def test_what_begins_anew_begins_with_its_shadow():
    pair = Pair()
    pair.send(1, 2)
    pair.clock.now += 8 * 24 * HOUR
    assert pair.send(3).state.reason == "expired"
    assert pair.track().y.tolist() == alone(0.25, 3).y[-1].tolist()
    pair.prime(5, 6, 7)
    assert pair.track().y.tolist() == alone(0.25, 5, 6, 7).y[-1].tolist()
    assert pair.track().sums == (0, 0, 0, 3)
    assert pair.send(8).paired.steps == 1, "both stood with a prediction after the history"


@pytest.mark.parametrize(("engine", "why"), [(Diverging, "no number"), (Raising, "RuntimeError: no kernel")])
def test_a_candidate_that_can_not_follow_counts_against_itself_until_it_stands_again(engine, why, caplog):
    shadow._tell_once.cache_clear()
    pair = Pair(engine(0.5))
    pair.send(1)
    assert pair.send(1).paired.sum == 0, "the same leak: no difference"
    with caplog.at_level(logging.WARNING):
        assert pair.send(20).paired == shadow.Paired("11" * 32, 1, -1.0)
    assert why in caplog.records[-1].why
    assert (pair.track().state.size, pair.track().y.shape) == (0, (1, 0))
    lost = [pair.send(1).paired for _ in range(8)]
    assert {(paired.steps, paired.sum) for paired in lost} == {(1, -1.0)}
    assert len(caplog.records) == 1
    # the context holds eight, so what it could not follow has left it
    assert pair.send(1).paired is None
    assert pair.track().sums[:2] == (10, -9.0)
    assert abs(pair.send(1).paired.sum) < 1e-3, "the served one still remembers the twenty a little"


def test_a_lost_track_begins_anew_with_its_client_s_state():
    pair = Pair(Raising(0.5), interval_s=HOUR)
    t0 = pair.clock.now - 100 * HOUR
    pair.send(20, times=(t0,))
    assert pair.send(1, times=(t0 + 3 * HOUR,)).paired.sum == -1
    assert pair.send(1, times=(t0 + 6 * HOUR,), gap="restart").paired is None
    assert pair.send(1, times=(t0 + 7 * HOUR,)).paired.sum == 0


def test_a_candidate_that_can_not_follow_the_past_is_lost_from_the_start():
    pair = Pair(Raising(0.25), labels={"stable": 1})
    pair.send(1, 20)
    pair.label(BOTH)
    assert pair.send(1, 1).paired == shadow.Paired("11" * 32, 2, -2.0)
    with hurried():
        assert pair.send(1).paired.sum == -1, "no replay at every step"


def test_promotion_swaps_the_tracks():
    pair = Pair()
    pair.send(1, 2, 3)
    view, told = pair.predictor.inspect(pair.key), pair.send(4).y[-1, 0, 0]
    assert (view.shadow.version, view.shadow.context, view.shadow.compared) == (2, 3, 2)
    pair.label(PROMOTED)
    steps = pair.engine.steps, pair.other.steps
    with hurried():
        answer = pair.send(5)
    assert (answer.version, answer.step) == (2, 5)
    assert (answer.state.status, answer.state.reason, answer.state.context) == ("carried", "promoted", 5)
    assert answer.previous.predicted[0] == told, "what the client was told is what is marked"
    assert answer.y[-1].tolist() == alone(0.25, 1, 2, 3, 4, 5).y[-1].tolist()
    assert (pair.engine.steps, pair.other.steps) == (steps[0], steps[1] + 1), "one step, and none of it a replay"
    assert [track.fingerprint for track in pair.record().tracks] == ["11" * 32]
    assert pair.record().generation == 2
    after = pair.send(6)
    assert (after.state.status, after.state.reason, after.paired) == ("carried", None, None)
    assert pair.predictor.inspect(pair.key).scored == view.scored + 3


def test_a_promoted_client_s_intervals_have_followed_its_candidate_s_own_errors():
    rng = np.random.default_rng(13)
    values = rng.normal(size=40).round(2).tolist()
    pair, limits = Pair(limits=Limits(adaptive_intervals=True)), Limits(adaptive_intervals=True)
    only = Desk(pair.spec2, limits, LeakyIntegrator(0.25))
    for desk in (pair, only):
        for value in values:
            answer = desk.send(value)
    assert pair.track().stretch == only_track(only).stretch != pair.record().tracks[0].stretch
    pair.label(PROMOTED)
    seen, expected = pair.predictor.forecast(pair.key, 2), only.predictor.forecast(only.key, 2)
    assert seen.interval.tolist() == expected.interval.tolist() == answer.interval.tolist()
    after = pair.send(1).interval, only.send(1).interval
    np.testing.assert_allclose(*after, atol=0.02, err_msg="the first is marked on what the old version had told")


def only_track(desk):
    return decode(desk.key, desk.stored()).tracks[0]


def test_a_promoted_client_s_retry_is_told_the_same_again():
    pair = Pair()
    pair.send(1)
    pair.label(PROMOTED)
    first = pair.send(2, step=2)
    again = pair.send(2, step=2)
    assert (again.replayed, again.state, again.version) == (True, first.state, 2)
    assert again.y.tolist() == first.y.tolist()


def test_between_promotion_and_the_next_step_the_shadow_s_state_is_what_is_read():
    pair = Pair()
    pair.send(1, 2, 3)
    pair.label(PROMOTED)
    before = pair.stored()
    only = Desk(pair.spec2, engine=LeakyIntegrator(0.25))
    only.send(1, 2, 3)
    seen, expected = pair.predictor.forecast(pair.key, 3), only.predictor.forecast(only.key, 3)
    assert seen.ahead.tolist() == expected.ahead.tolist()
    assert (seen.state.status, seen.state.reason, seen.version) == ("carried", "promoted", 2)
    view = pair.predictor.inspect(pair.key)
    assert (view.version, view.fingerprint, view.context, view.shadow) == (2, "11" * 32, 3, None)
    assert pair.stored() == before


def test_a_promoted_track_as_old_as_its_rebuild_says_so():
    pair = Pair(labels={"stable": 1}, context_length=4)
    for value in range(20):
        pair.send(value)
    pair.label(BOTH)
    pair.send(1)
    pair.label(PROMOTED)
    assert pair.send(2).state.context == 6


def test_a_lost_track_is_not_promoted_but_rebuilt():
    pair = Pair(Raising(0.25))
    for value in (1, 20, *[1] * 8):
        pair.send(value)
    pair.label(PROMOTED)
    answer = pair.send(3)
    assert (answer.state.status, answer.state.reason) == ("rebuilt", "model_updated")


def test_versions_that_change_places_swap_their_tracks_and_swap_them_back():
    pair = Pair()
    pair.send(1, 2, 3)
    pair.label({"stable": 2, "candidate": 1})
    with hurried():
        answer = pair.send(4)
    assert (answer.state.reason, answer.paired) == ("promoted", None), "what was told was the other track's"
    assert [track.fingerprint[:2] for track in pair.record().tracks] == ["11", "00"]
    assert pair.track().y.tolist() == alone(0.5, 1, 2, 3, 4).y[-1].tolist()
    assert pair.send(5).paired.steps == 1
    pair.label(BOTH)
    assert pair.send(6).y[-1].tolist() == alone(0.5, 1, 2, 3, 4, 5, 6).y[-1].tolist()


def test_a_candidate_of_another_size_is_kept_shadowed_and_promoted():
    spec2 = {
        "initial_state": np.zeros(3, np.float32),
        "quantiles": (),
        "interval_columns": None,
        "residuals": None,
        "level": None,
    }
    pair = Pair(Wide(0.25), spec2=spec2)
    pair.send(1, 2)
    assert (pair.track().state.shape, pair.track().y.shape) == ((3,), (1, 1))
    assert pair.send(3).paired.steps == 1
    pair.label(PROMOTED)
    answer = pair.send(4)
    assert (answer.state.reason, answer.interval) == ("promoted", None)
    assert answer.y[-1, 0, 0] == alone(0.25, 1, 2, 3, 4).y[-1, 0, 0]


def test_an_export_leaves_the_shadow_out_and_takes_the_promoted_track():
    pair = Pair()
    pair.send(1, 2)
    mover = Mover(pair.registry, pair.store, pair.predictor._locks, pair.predictor._capacity, pair.clock)
    exported = mover.export_state(pair.key).record
    assert [track.fingerprint[:2] for track in exported.tracks] == ["00"]
    pair.label(PROMOTED)
    exported = mover.export_state(pair.key)
    assert [track.fingerprint[:2] for track in exported.record.tracks] == ["11"]
    moved = mover.import_state(pair.key._replace(client="d"), exported)
    assert moved.state.status == "carried"
    answer = pair.predictor.predict(pair.key._replace(client="d"), request(3))
    assert answer.y[-1].tolist() == alone(0.25, 1, 2, 3).y[-1].tolist()


def test_a_fork_is_shadowed_as_its_original_was():
    pair = Pair()
    pair.send(1, 2)
    mover = Mover(pair.registry, pair.store, pair.predictor._locks, pair.predictor._capacity, pair.clock)
    mover.fork(pair.key, "d")
    with hurried():
        answer = pair.predictor.predict(pair.key._replace(client="d"), request(3))
    assert answer.paired.steps == 1
    assert mover.fork(pair.key, "e").repeated is False
    assert mover.fork(pair.key, "e").repeated is True


def test_witnesses_are_handed_the_comparison_and_no_difference_is_ever_out_of_bounds():
    rng = np.random.default_rng(11)
    pair = Pair(LeakyIntegrator(0.9))
    for value in (rng.normal(size=200) * 10.0 ** rng.integers(-3, 4, 200)).tolist():
        paired = pair.send(value).paired
        assert paired is None or abs(paired.sum) <= paired.steps
    steps, total, squares, _ = pair.track().sums
    assert steps == 199
    assert abs(total) <= math.sqrt(steps * squares) <= steps


def test_a_request_under_way_ends_on_the_version_it_began_with():
    class Waiting(LeakyIntegrator):
        begun, gate = threading.Event(), threading.Event()

        def step(self, x, state):
            self.begun.set()
            assert self.gate.wait(30)
            return super().step(x, state)

    pair = Pair()
    pair.send(1)
    pair.engine = Waiting(0.5)
    pair.label(BOTH)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(pair.send, 2)
        assert Waiting.begun.wait(30)
        pair.label(PROMOTED)
        Waiting.gate.set()
        assert under_way.result().version == 1
    assert (pair.send(3).version, pair.record().step) == (2, 3)


def test_a_lost_track_is_rebuilt_from_what_came_since_and_not_from_what_it_was_lost_by():
    """Its own context is shorter than the one kept, which another version needs."""
    pair = Pair(Raising(0.25), spec2={"context_length": 2})
    for value in (1, 20, 3, 5):
        pair.send(value)
    assert pair.send(7).paired is None, "it stands again, and is compared from the next step on"
    assert pair.track().y.tolist() == alone(0.25, 3, 5, 7).y[-1].tolist()
    assert pair.send(7).paired.steps == 1


def test_a_rollback_finds_as_much_of_the_context_as_the_old_version_needs():
    pair, only = Pair(spec2={"context_length": 2}), Desk(make_spec())
    values = [4, -7, 9, 1, 0, 5, -3, 2, 8, 6]
    for value in values:
        pair.send(value)
    pair.label(PROMOTED)
    pair.send(3)
    pair.label({"stable": 1, "previous": 2})
    answer = pair.send(5)
    only.send(*[*values, 3][-8:], 5)
    assert (answer.state.status, answer.state.context) == ("rebuilt", 9)
    assert pair.record().tracks[0].state.tolist() == decode(only.key, only.stored()).tracks[0].state.tolist()
    pair.label({"stable": 2})
    pair.send(1)
    assert len(pair.record().context) == 2, "nobody needs more any longer"


def test_what_an_imported_state_says_of_comparisons_elsewhere_does_not_count_here():
    pair = Pair(labels={"stable": 2})
    pair.send(1, 2)
    mover = Mover(pair.registry, pair.store, pair.predictor._locks, pair.predictor._capacity, pair.clock)
    exported = mover.export_state(pair.key)
    claimed = replace(exported.record.tracks[0], sums=(1e300, 1e308, 0.0, 1.0))
    exported = replace(exported, record=replace(exported.record, tracks=(claimed,)))
    pair.label(BOTH)
    mover.import_state(pair.key, exported, rebuild=True, overwrite=True)
    pair.send(3)
    view = pair.predictor.inspect(pair.key)
    assert (view.shadow.version, view.shadow.context, view.shadow.compared) == (2, 3, 0)
