"""Live errors as metrics: sums of each version that add up to what clients were told, a replay counted never."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.core.predictor import Limits
from service.core.types import TargetSpec
from service.metrics import Metrics
from service.minutes import MinuteSums
from service.sessions import CountedPredictor
from tests.desk import Desk
from tests.fakes import LeakyIntegrator, make_spec, serve

NAMES = ("scored", "absolute_error", "squared_error", "naive_squared_error", "covered", "bounded")


@pytest.fixture
def metrics():
    return Metrics()


def counted(metrics, **spec):
    """A desk whose predictor's marks become metrics."""
    desk = Desk(make_spec(**spec))
    desk.predictor = CountedPredictor(
        metrics.sessions, desk.registry, desk.store, desk.clock, Limits(), witnesses=[metrics.live]
    )
    return desk


def sums(metrics, version=1, target="a"):
    """The live sums of a version's target as they stand, by NAMES; None where there are none."""
    text, found = metrics.exposition()[0].decode(), {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name.startswith("recurve_live_") and name.endswith("_total") and f'version="{version}"' in rest:
            assert "client" not in rest
            if f'target="{target}"' in rest:
                found[name.removeprefix("recurve_live_").removesuffix("_total")] = float(rest.rpartition(" ")[2])
    return tuple(found[name] for name in NAMES) if found else None


def test_marks_add_up_over_clients_requests_and_observations(metrics):
    desk = counted(metrics)
    rng = np.random.default_rng(7)
    expected = np.zeros(6)
    for request in range(40):
        desk.key = desk.key._replace(client=f"c{request % 3}")
        answer = desk.send(*rng.normal(0, 2, 1 + request % 4))
        expected += 0.0 if answer.marks is None else answer.marks.sums
    assert expected[0] == sum(1 + request % 4 for request in range(40)) - 3
    assert sums(metrics) == pytest.approx(tuple(expected))


def test_one_absurd_observation_does_not_deafen_the_sums(metrics):
    """1e20, as some sensors say for "no data", squared, is a sum to which a float64 adds nothing any more."""
    desk = counted(metrics)
    rng = np.random.default_rng(7)
    desk.send(0.0, 1e20, 0.0, -3e38, *([0.0] * 200))
    before = sums(metrics)
    expected = np.sum([desk.send(value).marks.sums for value in rng.normal(0, 2, 20)], axis=0)
    assert min(expected[:4]) > 0
    np.testing.assert_allclose(np.subtract(sums(metrics), before), expected, rtol=1e-3)
    assert before[1] > 1e5  # and yet it shows


def test_a_target_that_hardly_ever_moved_fails_no_request(metrics):
    desk = counted(metrics, targets=(TargetSpec("a", None, 1e-200),))
    metrics.live.adds = lambda *_: None
    desk.send(0.0, 1.0)
    assert sums(metrics)[0] == 1.0


def test_a_replay_a_refusal_and_a_history_count_nothing(metrics):
    desk = counted(metrics)
    desk.send(0.0, step=1)
    desk.send(3.0, step=2)
    before = sums(metrics)
    assert desk.send(3.0, step=2).replayed
    desk.prime(1.0, 2.0, 3.0)
    assert sums(metrics) == before == (1.0, 3.0, 9.0, 9.0, 0.0, 1.0)


def test_an_error_is_counted_for_the_version_that_made_it_and_none_for_the_one_that_took_over(metrics):
    desk = counted(metrics)
    desk.send(0.0)
    desk.send(1.0)
    serve(desk.registry, make_spec(version=2, fingerprint="11"), LeakyIntegrator(), generation=2)
    assert desk.send(2.0).version == 2
    assert (sums(metrics)[0], sums(metrics, version=2)) == (1.0, None)
    desk.send(3.0)
    assert (sums(metrics)[0], sums(metrics, version=2)[0]) == (1.0, 1.0)


def test_targets_are_counted_each_and_one_that_nothing_observes_not_at_all(metrics):
    desk = counted(metrics, features=("a", "b"), predicts=("a", "b"), observed=np.array([0, -1]))
    desk.send((0.0, 0.0))
    desk.send((1.0, 5.0))
    assert sums(metrics)[0] == 1.0
    assert sums(metrics, target="b") is None


def test_the_minutes_of_a_version_get_its_errors_in_units_of_scale(metrics):
    desk = counted(metrics, targets=(TargetSpec("a", "u", 2.0),))
    minutes = MinuteSums(desk.store, desk.clock)
    metrics.live.minutes(minutes)
    desk.send(0.0)
    desk.send(4.0, 2.0)
    assert minutes.flush()
    desk.clock.now += 120.0
    (minute,) = minutes.closed("toy", "live:1")
    assert minute.values == (2.0, 16.0 / 4, (16.0 + 4.0) / 4)


def test_marks_count_once_however_many_threads_settle_at_once(metrics):
    """The tally's thread, a scrape and the minutes' thread: each takes what waits."""
    desk, rounds, marks = counted(metrics), 40, 2000
    minutes = MinuteSums(desk.store, desk.clock)
    metrics.live.minutes(minutes)
    desk.send(0.0)
    answer = desk.send(1.0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            for _ in range(rounds):
                for _ in range(marks):
                    metrics.live.witness(desk.key, None, answer)
                for settling in [pool.submit(settle) for settle in (metrics.live.settle, minutes.flush, minutes.flush)]:
                    settling.result()
    finally:
        sys.setswitchinterval(before)
    assert sums(metrics)[0] == 1.0 + rounds * marks
    assert minutes.flush()
    desk.clock.now += 120.0
    (minute,) = minutes.closed("toy", "live:1")
    assert minute.values[0] == 1.0 + rounds * marks
