"""What a process remembers of its last saves spares it loads, and never decides anything."""

from collections import Counter

from service.core.ports import Stored
from service.core.predictor import Predictor
from service.core.recent import APART, ENTRY_BYTES, Recent
from service.core.types import ClientKey
from tests.desk import Desk, request
from tests.fakes import make_spec

KEY = ClientKey("default", "toy", "c")


class Counting:
    """A store whose verbs are counted."""

    def __init__(self, store):
        self.store, self.calls = store, Counter()

    def __getattr__(self, verb):
        def called(*args):
            self.calls[verb] += 1
            return getattr(self.store, verb)(*args)

        return called


def two_processes():
    """Two predictors over one store, as two workers have it, each with a memory of its own; calls are counted."""
    desk = Desk(make_spec(("a",)))
    stores = [Counting(desk.store) for _ in range(2)]
    return desk, stores, [Predictor(desk.registry, store, desk.clock) for store in stores]


def test_a_client_that_stays_with_its_process_is_loaded_twice_and_then_no_more():
    """At its first step, to see that it is new, and at its second; then each step is one save."""
    desk, (store, _), (here, _) = two_processes()
    for i in range(50):
        assert here.predict(desk.key, request(i)).step == i + 1
    assert store.calls["load"] <= 3  # with the look for a tombstone
    assert store.calls["save"] == 50


def test_a_client_that_hops_between_processes_loses_and_doubles_no_step():
    desk, _, processes = two_processes()
    told = []
    for i in range(200):
        answer = processes[(i * i) % 3 % 2].predict(desk.key, request(i))
        assert answer.step == i + 1
        told.append(float(answer.y[0, 0, 0]))
    alone = Desk(make_spec(("a",)))
    assert told == [float(alone.send(i).y[0, 0, 0]) for i in range(200)]


def test_who_was_overtaken_loads_for_a_while_rather_than_step_in_vain():
    desk, (store, _), (here, there) = two_processes()
    for i in range(5):
        here.predict(desk.key, request(i))
    there.predict(desk.key, request(5))
    store.calls.clear()
    for i in range(APART):
        here.predict(desk.key, request(i))
    assert store.calls["save"] == APART + 1  # the first was in vain
    assert store.calls["load"] == APART
    store.calls.clear()
    for i in range(5):
        here.predict(desk.key, request(i))
    assert store.calls["load"] <= 1


def test_a_record_that_was_deleted_or_replaced_is_not_brought_back():
    desk, _, (here, there) = two_processes()
    for i in range(5):
        here.predict(desk.key, request(i))
    there.forget(desk.key)
    assert here.predict(desk.key, request(7)).step == 1
    for i in range(3):
        here.predict(desk.key, request(i))
    there.prime(desk.key, request(1, 2, 3, 4, 5, 6, 7, 8, 9))
    answer = here.predict(desk.key, request(7))
    assert (answer.step, answer.state.status) == (10, "carried")


def test_a_retry_and_a_conflict_are_answered_by_what_is_stored():
    desk, _, (here, there) = two_processes()
    for i in range(3):
        here.predict(desk.key, request(i, step=i + 1))
    mine = there.predict(desk.key, request(3, step=4))
    again = here.predict(desk.key, request(3, step=4))
    assert again.replayed
    assert (again.step, again.y.tolist()) == (4, mine.y.tolist())


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first():
    recent = Recent(3 * (100 + ENTRY_BYTES))
    keys = [KEY._replace(client=f"c{i}") for i in range(5)]
    for key in keys:
        recent.keep(key, Stored(b"12345678", bytes(100)))
    assert [recent.take(key) is not None for key in keys] == [False, False, True, True, True]
    assert recent.take(keys[4]) is None, "it is taken, not looked at"
    recent.keep(keys[0], Stored(b"12345678", bytes(10_000)))
    assert recent.take(keys[0]) is None, "one that is too large is not kept"
    recent.keep(keys[1], Stored(b"12345678", bytes(100)))
    assert recent.take(keys[1]) is not None
