"""A client's lock: one holder at a time, nobody else held up, nothing left behind."""

import threading
import time

from service.core.locks import ClientLocks
from service.core.types import ClientKey

KEY = ClientKey("default", "m", "c")


def test_no_client_waits_for_another():
    locks = ClientLocks()
    others = [KEY._replace(client=f"other-{n}") for n in range(5000)]
    assert all(locks.take(key) for key in others)
    assert locks.take(KEY)


def test_a_client_has_one_holder_at_a_time():
    locks, inside, most = ClientLocks(), [], []

    def work():
        for _ in range(200):
            assert locks.take(KEY, 30.0)
            inside.append(None)
            most.append(len(inside))
            time.sleep(0)
            inside.pop()
            locks.give(KEY)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 1600
    assert not locks._held


def test_waiting_ends_when_the_lock_is_given_back_and_no_later_than_it_may():
    locks = ClientLocks()
    assert locks.take(KEY)
    assert not locks.take(KEY)
    began = time.monotonic()
    assert not locks.take(KEY, 0.05)
    assert 0.05 <= time.monotonic() - began < 5.0
    assert locks._held[KEY].by == 1
    threading.Timer(0.05, locks.give, [KEY]).start()
    assert locks.take(KEY, 30.0)
    assert time.monotonic() - began < 20.0


def test_who_waits_is_not_passed_over_by_those_that_come_again_and_again():
    """They hold the lock nearly all the time, and take it again within microseconds."""
    locks, stop = ClientLocks(), threading.Event()

    def hold():
        while not stop.is_set():
            if locks.take(KEY, 10.0):
                time.sleep(0.001)
                locks.give(KEY)

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert locks.take(KEY, 10.0)
            took.append(time.monotonic() - began)
            locks.give(KEY)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert sorted(took)[10] < 0.5
    assert not locks._held


def test_a_lock_is_given_back_whatever_happens_and_leaves_nothing():
    locks = ClientLocks()
    for _ in range(2):
        try:
            with locks.of(KEY):
                assert not locks.take(KEY)
                raise LookupError
        except LookupError:
            pass
    assert locks.take(KEY)
    locks.give(KEY)
    assert not locks._held
