"""Who can't wait gives way before anything moves, and the same call then succeeds where there is time."""

import sqlite3
import threading

import numpy as np
import pytest

from service.core.patience import LONG_STEPS, WouldWait, give_way, hurried, is_hurried
from service.core.predictor import Limits
from service.stores import open_store
from tests.desk import HOUR, Desk
from tests.fakes import LeakyIntegrator, make_spec, serve


def refuses_to_wait(desk, *values, **more):
    before = desk.stored()
    with hurried(), pytest.raises(WouldWait):
        desk.send(*values, **more)
    assert desk.stored() == before, "nothing has moved"


def test_being_hurried_is_a_threads_own_and_ends_with_the_block():
    seen = []
    with hurried():
        assert is_hurried()
        other = threading.Thread(target=lambda: seen.append(is_hurried()))
        other.start()
        other.join()
    assert (seen, is_hurried()) == ([False], False)
    give_way()


def test_no_handler_of_errors_takes_it_for_one():
    assert not issubclass(WouldWait, Exception)


def test_a_short_request_is_answered_in_a_hurry(desk):
    desk.send(1)
    with hurried():
        assert [desk.send(1).step, desk.send(2, horizon=3).step] == [2, 3]


def test_counting_all_clients_gives_way(desk):
    refuses_to_wait(desk, 1)
    assert desk.send(1).step == 1


@pytest.mark.parametrize("more", [{"horizon": LONG_STEPS}, {}], ids=["horizon", "observations"])
def test_a_long_request_gives_way(desk, more):
    desk.send(1)
    values = [1] if more else [1] * LONG_STEPS
    refuses_to_wait(desk, *values, **more)
    assert desk.send(*values, **more).step == 1 + len(values)


def test_many_missing_steps_give_way():
    desk = Desk(make_spec(interval_s=HOUR))
    t0 = desk.clock.now - 1000 * HOUR
    desk.send(1, times=(t0,))
    with hurried():
        desk.send(1, times=(t0 + 20 * HOUR,))
    times = tuple(t0 + at * HOUR for at in (40, 60, 80, 100))
    refuses_to_wait(desk, 1, 2, 3, 4, times=times)
    with hurried():
        assert desk.send(1, 2, 3, 4, times=times, gap="restart").state.context == 1
    more = tuple(time + 80 * HOUR for time in times)
    assert desk.send(1, 2, 3, 4, times=more).state.filled == 76


def test_a_request_gives_way_to_one_of_the_same_client_that_is_at_work(desk):
    desk.send(1)
    with desk.predictor._locks.of(desk.key):
        refuses_to_wait(desk, 2)
    assert desk.send(2).step == 2


def test_a_lost_race_gives_way():
    desk = Desk(make_spec(), limits=Limits(contention_s=0.05))
    desk.send(1)
    save, desk.store.save = desk.store.save, lambda *args: False
    refuses_to_wait(desk, 2)
    desk.store.save = save
    assert desk.send(2).step == 2


def test_a_long_rebuild_gives_way():
    desk = Desk(make_spec(context_length=4 * LONG_STEPS))
    desk.send(*np.arange(2 * LONG_STEPS))
    serve(desk.registry, make_spec(version=2, fingerprint="11", context_length=4 * LONG_STEPS), LeakyIntegrator(0.25))
    refuses_to_wait(desk, 1)
    assert desk.send(1).state.status == "rebuilt"


def test_a_look_for_newer_labels_gives_way():
    desk = Desk(make_spec())
    serve(desk.registry, desk.spec, desk.engine, generation=2)
    desk.send(1)
    serve(desk.registry, desk.spec, desk.engine, generation=1)
    looked = []
    desk.registry.on_stale = looked.append
    with hurried(), pytest.raises(WouldWait):
        desk.send(2)
    assert looked == []
    assert desk.send(2).step == 2
    assert looked == ["toy"]


def test_a_shard_that_is_busy_is_not_waited_for(tmp_path):
    desk = Desk(make_spec())
    store = open_store(f"sqlite:///{tmp_path}/state")
    try:
        nonce = b"12345678"
        assert store.save(desk.key, None, nonce, b"one")
        for shard in store._shards:
            shard._guard.acquire()
        with hurried(), pytest.raises(WouldWait):
            store.load(desk.key)
        for shard in store._shards:
            shard._guard.release()
        other = open_store(f"sqlite:///{tmp_path}/state")  # as another process
        for shard in other._shards:
            shard._turn.take(float("inf"))
        with hurried(), pytest.raises(WouldWait):
            store.save(desk.key, nonce, b"87654321", b"two")
        for shard in other._shards:
            shard._turn.give()
        other.close()
        assert store.load(desk.key).blob == b"one"
        assert store.save(desk.key, nonce, b"87654321", b"two")
    finally:
        store.close()


def test_a_commit_that_failed_and_happened_is_known_though_the_shard_is_busy(tmp_path):
    class Failing:
        """A connection that fails once all is written."""

        in_transaction = False

        def __init__(self, connection):
            self.connection = connection

        def execute(self, *args):
            self.connection.execute(*args)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        def close(self):
            self.connection.close()
            shard._enter = busy

    def busy():
        give_way()
        enter()

    desk = Desk(make_spec())
    store = open_store(f"sqlite:///{tmp_path}/state")
    try:
        assert store.save(desk.key, None, b"12345678", b"one")
        (shard,) = [shard for shard in store._shards if shard._connection is not None]
        enter, shard._connection = shard._enter, Failing(shard._connection)
        with hurried():
            assert store.save(desk.key, b"12345678", b"87654321", b"two")
        assert is_hurried() is False
        assert store.load(desk.key).blob == b"two"
    finally:
        store.close()
