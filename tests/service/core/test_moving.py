"""Moving beside other writers: one of them wins, none is lost, and many clients are forgotten bit by bit."""

import threading

import pytest

from service.core import bulk
from service.core.capacity import Capacity
from service.core.errors import ClientExists, Contended, OrderConflict
from service.core.locks import ClientLocks
from service.core.mover import Mover
from service.core.predictor import Limits, Predictor
from service.core.records import Records
from service.core.tombstones import stone_key
from service.core.types import ClientKey
from tests.desk import HOUR, Desk, request
from tests.fakes import make_spec, serve


class Interfering:
    """A store before each of whose first `times` saves under `key` somebody else does `what`."""

    def __init__(self, inner, key, what, times=1):
        self.inner, self.key, self.what, self.times = inner, key, what, times

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def save(self, key, old, new, blob):
        if key == self.key and self.times:
            self.times -= 1
            self.what()
        return self.inner.save(key, old, new, blob)


@pytest.fixture
def desk():
    desk = Desk(make_spec())
    desk.other = desk.key._replace(client="d")
    return desk


def mover(desk, store=None, **limits):
    store = desk.store if store is None else store
    return Mover(desk.registry, store, ClientLocks(), Capacity(store, 10, desk.clock), desk.clock, Limits(**limits))


def test_a_client_that_appears_meanwhile_is_not_overwritten(desk):
    desk.send(1, 2)
    between = Interfering(desk.store, desk.other, lambda: desk.predictor.predict(desk.other, request(9)))
    exported = mover(desk).export_state(desk.key)
    with pytest.raises(ClientExists):
        mover(desk, between).import_state(desk.other, exported)
    assert desk.predictor.inspect(desk.other).step == 1
    desk.predictor.forget(desk.other)
    between.times = 1
    with pytest.raises(ClientExists):
        mover(desk, between).fork(desk.key, "d")
    assert desk.predictor.inspect(desk.other).step == 1


def test_overwriting_goes_over_whatever_was_written_last(desk):
    desk.send(1, 2)
    exported = mover(desk).export_state(desk.key)
    desk.predictor.predict(desk.other, request(9))
    between = Interfering(desk.store, desk.other, lambda: desk.predictor.predict(desk.other, request(9)), times=3)
    moved = mover(desk, between).import_state(desk.other, exported, overwrite=True)
    assert (moved.step, moved.created, between.times) == (2, False, 0)
    assert desk.predictor.inspect(desk.other).step == 2


def test_a_client_that_others_write_all_the_time_is_left_alone(desk):
    desk.send(1)
    exported = mover(desk).export_state(desk.key)
    desk.predictor.predict(desk.other, request(9))
    between = Interfering(desk.store, desk.other, lambda: desk.predictor.predict(desk.other, request(9)), times=10**9)
    with pytest.raises(Contended):
        mover(desk, between, contention_s=0.05).import_state(desk.other, exported, overwrite=True)


def test_an_import_among_predicts_is_one_of_the_writers(desk):
    """Numbered steps and imports of the state at step 1, at once: each step is absorbed, or named as out of line."""
    desk.send(5, step=1)
    exported = mover(desk).export_state(desk.key)
    locks, capacity = ClientLocks(), Capacity(desk.store, 10, desk.clock)
    moving = Mover(desk.registry, desk.store, locks, capacity, desk.clock)
    predictor = Predictor(desk.registry, desk.store, desk.clock, locks=locks, capacity=capacity)
    expected = {1: 2.5}
    for step in range(2, 302):
        expected[step] = expected[step - 1] / 2 + step / 2
    wrong, begin = [], threading.Barrier(2)

    def steps():
        begin.wait()
        at = 2
        for _ in range(300):
            try:
                answer = predictor.predict(desk.key, request(at, step=at))
                if answer.y[-1, 0, 0] != pytest.approx(expected[answer.step], rel=1e-6):
                    wrong.append(answer)
                at += 1
            except OrderConflict as conflict:
                at = conflict.extra["expected_step"]

    def imports():
        begin.wait()
        for _ in range(100):
            moving.import_state(desk.key, exported, overwrite=True)

    threads = [threading.Thread(target=steps), threading.Thread(target=imports)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_import_over_newer_labels_reads_them_first(desk):
    """As every other write: a record never goes back a label generation."""
    desk.send(1)
    exported = mover(desk).export_state(desk.key)
    asked = []
    desk.registry.on_stale = asked.append
    newer = Desk(make_spec())
    serve(newer.registry, newer.spec, newer.engine, generation=7)
    Predictor(newer.registry, desk.store, desk.clock).predict(desk.other, request(1))
    mover(desk).import_state(desk.other, exported, overwrite=True)
    assert asked == ["toy"]


def test_a_fork_of_a_record_that_has_seen_newer_labels_reads_them_first(desk):
    newer = Desk(make_spec(version=2, fingerprint="11"))
    serve(newer.registry, newer.spec, newer.engine, generation=7)
    Predictor(newer.registry, desk.store, desk.clock).predict(desk.key, request(1))
    desk.registry.on_stale = lambda name: serve(desk.registry, newer.spec, newer.engine, generation=7)
    moved = mover(desk).fork(desk.key, "d")
    assert (moved.spec.version, moved.state.status) == (2, "carried")


def test_many_clients_are_forgotten_bit_by_bit(desk):
    names = [f"roof-{number}" for number in range(250)] + ["cellar"]
    for name in names:
        desk.predictor.predict(ClientKey("default", "toy", name), request(1))
    calls, deleted, after = 0, 0, None
    while calls == 0 or after is not None:
        done = bulk.forget_matching(desk.predictor, "default", "toy", "roof-", after, bound_s=0.0)
        calls, deleted, after = calls + 1, deleted + done.deleted, done.cursor
    assert (deleted, calls) == (250, 4)
    assert desk.predictor.clients("default", "toy", None, 10).clients == ["cellar"]


def test_what_is_left_of_an_expired_client_is_forgotten_with_the_others(desk):
    for _ in range(3):
        desk.send(1)
    desk.clock.now += 8 * 24 * HOUR
    records = Records(desk.store, desk.clock)
    stored, record = records.load(desk.key, desk.spec)
    assert records.bury(desk.key, stored.nonce, record)
    assert bulk.forget_matching(desk.predictor, "default", "toy", "c", None) == (1, None)
    assert (desk.send(1, step=1).state.status, desk.store.load(stone_key(desk.key))) == ("started", None)


def test_a_search_among_many_names_gives_up_in_time_and_goes_on_from_there(desk):
    for number in range(50):
        desk.predictor.predict(ClientKey("default", "toy", f"a-{number:02}"), request(1))
    desk.predictor.predict(ClientKey("default", "toy", "z"), request(1))
    first = bulk.matching(desk.predictor, "default", "toy", "z", None, 10, bound_s=0.0)
    assert (first.clients, first.cursor is None) == ([], False)
    assert bulk.matching(desk.predictor, "default", "toy", "z", first.cursor, 10).clients == ["z"]
