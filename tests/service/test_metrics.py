"""Metrics: ports timed by wrapping, requests counted by one hook, and never a client's name."""

import numpy as np
import pytest

from service.core.errors import AtCapacity, OrderConflict, RecurveError, StoreUnavailable
from service.core.ports import CountsClients, Page, Save, SavesMany, Scans, Stored, Walks
from service.core.predictor import Limits
from service.core.sweep import Swept
from service.core.types import ClientKey
from service.metrics import Metrics, ServedNow
from service.sessions import CountedPredictor
from service.stores import open_store
from tests.desk import HOUR, Desk
from tests.fakes import LeakyIntegrator, make_spec, registry_of

KEY = ClientKey("default", "toy", "a-private-name")


@pytest.fixture
def metrics():
    return Metrics()


def counted_desk(metrics, **spec):
    """A desk whose predictor counts, with room for one client."""
    desk = Desk(make_spec(**spec))
    store = metrics.time_store(desk.store)
    desk.predictor = CountedPredictor(metrics.sessions, desk.registry, store, desk.clock, Limits(max_clients=1))
    return desk


def value(metrics, line_start, *more):
    """The value of the sample whose line starts so; None if there is none."""
    text = metrics.exposition(*more)[0].decode()
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(line_start)), None)


class BareStore:
    """Keeps nothing, counts nothing, and is away on demand."""

    down = False

    def load(self, key):
        if self.down:
            raise StoreUnavailable("away")
        return Stored(b"n" * 8, b"")

    def save(self, key, old, new, blob):
        return False

    def delete(self, key, old=None):
        return True

    def list(self, tenant, model, after, limit):
        return Page([], None)

    def close(self):
        pass


def test_a_timed_engine_answers_as_the_engine_and_counts_steps(metrics):
    spec = make_spec()
    plain, timed = LeakyIntegrator(), metrics.time_engine(LeakyIntegrator(), spec)
    x, state = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    for got, expected in zip(timed.step(x, state), plain.step(x, state), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(timed.gates(x, state)[0], plain.gates(x, state)[0])
    timed.close()
    assert value(metrics, 'recurve_engine_step_seconds_count{model="toy",version="1"}') == 1


def test_a_timed_store_answers_as_the_store_and_times_every_verb(metrics):
    store = metrics.time_store(open_store("memory://"))
    assert store.load(KEY) is None
    assert store.save(KEY, None, b"1" * 8, b"blob") is True
    assert store.load(KEY) == Stored(b"1" * 8, b"blob")
    assert store.list("default", "toy", None, 10).clients == [KEY.client]
    assert store.scan(None, 10).entries == [(KEY, b"1" * 8, b"blob")]
    other = KEY._replace(client="other")
    assert store.load_many([other, KEY]) == [None, Stored(b"1" * 8, b"blob")]
    saves = [Save(KEY, b"0" * 8, b"2" * 8, b"late"), Save(other, None, b"2" * 8, b"blob")]
    assert store.save_many(saves) == [False, True]
    assert value(metrics, "recurve_store_conflicts_total") == 1
    assert value(metrics, 'recurve_record_bytes_count{model="toy"}') == 2
    assert store.delete(KEY, b"2" * 8) is False
    assert store.delete(KEY) is True
    store.close()
    for verb, count in {
        "load": 2,
        "save": 1,
        "list": 1,
        "scan": 1,
        "delete": 2,
        "load_many": 1,
        "save_many": 1,
    }.items():
        assert value(metrics, f'recurve_store_seconds_count{{verb="{verb}"}}') == count


def test_a_save_that_lost_is_a_conflict_and_a_failure_an_error(metrics):
    inner = BareStore()
    store = metrics.time_store(inner)
    assert store.save(KEY, None, b"1" * 8, b"") is False
    inner.down = True
    with pytest.raises(StoreUnavailable):
        store.load(KEY)
    assert value(metrics, "recurve_store_conflicts_total") == 1
    assert value(metrics, 'recurve_store_errors_total{verb="load"}') == 1


def test_a_timed_store_has_the_powers_of_the_store(metrics):
    for power in (CountsClients, Scans, SavesMany):
        assert isinstance(metrics.time_store(open_store("memory://")), power)
        assert not isinstance(metrics.time_store(BareStore()), power)


def test_requests_and_answers_are_counted(metrics):
    desk = counted_desk(metrics)
    route = "/v1/models/<model>/clients/<client>/predict"
    first = desk.send(1.0, step=1)
    replay = desk.send(1.0, step=1)
    for answer in (first, replay):
        metrics.observe_request(route, "POST", 200, 0.001, answer)
    metrics.observe_request(route, "POST", 404, 0.001, None)
    metrics.observe_request("unknown", "GET", 404, 0.001, None)
    assert value(metrics, 'recurve_predicts_total{model="toy",status="200",version="1"}') == 2
    assert value(metrics, 'recurve_predicts_total{model="",status="404",version=""}') == 1
    assert value(metrics, 'recurve_states_total{model="toy",reason="",status="started"}') == 1
    assert value(metrics, 'recurve_states_total{model="toy",reason="",status="replayed"}') == 1
    assert value(metrics, 'recurve_observations_total{model="toy",version="1"}') == 1
    for method, name, status, count in (("POST", route, 200, 2), ("POST", route, 404, 1), ("GET", "unknown", 404, 1)):
        labels = f'method="{method}",route="{name}",status="{status}"'
        assert value(metrics, f"recurve_request_seconds_count{{{labels}}}") == count


def test_what_becomes_of_states_is_counted_by_how_and_why(metrics):
    desk = counted_desk(metrics, interval_s=HOUR)
    now = desk.clock.now
    desk.send(1.0, times=(now,))
    desk.clock.now += 3 * HOUR
    desk.send(2.0, times=(now + 3 * HOUR,))  # two missing, filled in
    desk.send(2.0, times=(now + 3 * HOUR,))  # again
    desk.clock.now += 100 * HOUR
    desk.send(3.0, times=(now + 103 * HOUR,))
    desk.clock.now += 8 * 24 * HOUR
    desk.send(4.0)
    desk.prime(1.0, 2.0, 3.0)
    for status, reason in (
        ("started", ""),
        ("carried", ""),
        ("replayed", ""),
        ("restarted", "gap"),
        ("restarted", "expired"),
    ):
        sample = f'recurve_states_total{{model="toy",reason="{reason}",status="{status}"}}'
        assert value(metrics, sample) == (2 if status == "started" else 1), sample
    assert value(metrics, 'recurve_filled_steps_total{model="toy"}') == 2
    assert value(metrics, 'recurve_observations_total{model="toy",version="1"}') == 7


def test_conflicts_are_counted_by_kind_and_clients_turned_away_by_model(metrics):
    desk = counted_desk(metrics)
    desk.send(1.0, step=1, idempotency_key="k")
    desk.send(2.0, step=2)
    for again, kind in (
        ({"step": 7}, "step_conflict"),
        ({"step": 1}, "already_absorbed"),
        ({"idempotency_key": "k", "step": 4}, "key_conflict"),
    ):
        with pytest.raises(OrderConflict):
            desk.send(1.0, **again)
        assert value(metrics, f'recurve_conflicts_total{{kind="{kind}",model="toy"}}') == 1
    desk.key = desk.key._replace(client="one too many")
    with pytest.raises(AtCapacity):
        desk.send(1.0)
    with pytest.raises(AtCapacity):
        desk.prime(1.0)
    assert value(metrics, 'recurve_turned_away_total{model="toy"}') == 2
    with pytest.raises(RecurveError):
        desk.send(float("nan"))  # wrong by itself: nothing of the client's
    assert "one too many" not in metrics.exposition()[0].decode()


def test_sizes_are_those_of_clients_records_alone(metrics):
    desk = counted_desk(metrics)
    desk.send(1.0)
    desk.send(2.0)
    size = len(desk.stored())
    store = metrics.time_store(desk.store)
    store.save(KEY._replace(tenant="~expired~default"), None, b"1" * 8, b"stone")
    assert value(metrics, 'recurve_record_bytes_count{model="toy"}') == 2
    assert 1.5 * size < value(metrics, 'recurve_record_bytes_sum{model="toy"}') <= 2 * size


def test_sweeps_are_counted_and_what_they_saw_is_told(metrics):
    swept = Swept(tombstones_dropped=3, quarantined_dropped=1)
    swept.buried["toy"], swept.active["toy"], swept.active["other"] = 2, 5, 0
    metrics.sessions.observe_sweeping(True)
    assert value(metrics, "recurve_sweep_lease") == 1
    metrics.sessions.observe_sweeping(False)
    assert value(metrics, "recurve_sweep_lease") == 0
    metrics.sessions.observe_swept(swept, done=True)
    metrics.sessions.observe_swept(Swept(), done=False)
    for sample, expected in (
        ('recurve_swept_clients_total{model="toy"}', 2),
        ('recurve_active_clients{model="toy"}', 5),
        ('recurve_active_clients{model="other"}', 0),
        ('recurve_dropped_total{kind="tombstone"}', 3),
        ('recurve_dropped_total{kind="quarantined"}', 1),
        ('recurve_sweeps_total{outcome="done"}', 1),
        ('recurve_sweeps_total{outcome="broken_off"}', 1),
    ):
        assert value(metrics, sample) == expected, sample


def test_methods_that_strangers_make_up_are_one_label(metrics):
    for i in range(50):
        metrics.observe_request("unknown", f"METHOD{i}", 405, 0.001, None)
    assert value(metrics, 'recurve_request_seconds_count{method="other",route="unknown",status="405"}') == 50
    assert "METHOD7" not in metrics.exposition()[0].decode()


def test_what_is_served_and_kept_is_told_at_a_scrape(metrics):
    registry, store = registry_of(make_spec(), LeakyIntegrator()), open_store("memory://")
    store.save(KEY, None, b"1" * 8, b"")
    now = ServedNow(registry, store, "default")
    assert value(metrics, 'recurve_model_info{label="stable",model="toy",version="1"}', now) == 1
    assert value(metrics, 'recurve_clients{model="toy"}', now) == 1
    assert KEY.client not in metrics.exposition(now)[0].decode()


def test_counts_are_kept_for_a_while(metrics):
    registry, store = registry_of(make_spec(), LeakyIntegrator()), open_store("memory://")
    now = ServedNow(registry, store, "default")
    assert value(metrics, 'recurve_clients{model="toy"}', now) == 0
    store.save(KEY, None, b"1" * 8, b"")
    assert value(metrics, 'recurve_clients{model="toy"}', now) == 0


def test_a_scrape_works_while_the_store_is_away(metrics):
    store = open_store("memory://")
    store.close()
    now = ServedNow(registry_of(make_spec(), LeakyIntegrator()), store, "default")
    assert value(metrics, "recurve_model_info", now) == 1
    assert value(metrics, "recurve_clients{", now) is None


def test_two_services_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.observe_request("/livez", "GET", 200, 0.001, None)
    assert value(one, "recurve_request_seconds_count") == 1
    assert value(other, "recurve_request_seconds_count") is None


def test_an_engine_keeps_its_power_to_walk_and_each_step_of_a_walk_counts(metrics):
    class Walking(LeakyIntegrator):
        def walk(self, x, state):
            ys = []
            for row in x[:, None]:
                y, state = self.step(row, state)
                ys.append(y)
            return np.concatenate(ys), state

    timed = metrics.time_engine(Walking(), make_spec())
    x, state = np.ones((70, 1), np.float32), np.zeros((1, 1), np.float32)
    for got, expected in zip(timed.walk(x, state), Walking().walk(x, state), strict=True):
        np.testing.assert_array_equal(got, expected)
    timed.step(x[:1], state)
    assert value(metrics, 'recurve_engine_step_seconds_count{model="toy",version="1"}') == 71
    assert value(metrics, 'recurve_engine_step_seconds_sum{model="toy",version="1"}') > 0
    assert not isinstance(metrics.time_engine(LeakyIntegrator(), make_spec(version=2)), Walks)
