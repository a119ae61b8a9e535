"""Minute sums: nothing added is lost or counted twice, whoever else adds and whatever the store does."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.core import minutes
from service.core.errors import RecordCorrupt, StoreUnavailable
from service.core.minutes import Sums
from service.core.sweep import Sweep, Swept
from service.core.types import ClientKey
from service.minutes import MOST_KEPT, MinuteSums
from service.stores import open_store
from tests.fakes import LeakyIntegrator, SettableClock, make_spec, registry_of
from tests.service.sweeping import sweep_once
from tests.serving import wait_until
from tests.stores.redis_servers import redis_server

NOON = 1_700_000_040.0  # a whole minute
KEY = ClientKey("~minutes", "toy", "shadow:00@1700000040000")
pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def clock():
    return SettableClock(NOON)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path):
    if request.param == "redis":
        server = request.getfixturevalue("server")
        server.ask("FLUSHALL")
        store = open_store(server.url)
    else:
        store = open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/state")
    yield store
    store.close()


def over(clock):
    """Let the minute close."""
    clock.now += 60.0 + 5.0


def test_what_is_added_to_a_minute_is_its_sum_once_it_has_closed(store, clock):
    sums = MinuteSums(store, clock)
    sums.add("toy", "s", (1, 0.25))
    clock.now += 59.9
    sums.add("toy", "s", (2, -1.0))
    sums.add("toy", "other", (7.0,))
    sums.add("more", "s", (9.0,))
    clock.now += 0.1
    sums.add("toy", "s", (1, 1.0))
    assert sums.flush() is True
    assert sums.closed("toy", "s") == []
    clock.now += 5
    assert sums.closed("toy", "s") == [(NOON, (3, -0.75))]
    assert sums.closed("toy", "other") == [(NOON, (7.0,))]
    over(clock)
    assert sums.closed("toy", "s") == [(NOON, (3, -0.75)), (NOON + 60, (1, 1.0))]
    assert sums.closed("toy", "s", after=NOON) == [(NOON + 60, (1, 1.0))]
    assert sums.closed("toy", "never") == []


def test_what_is_added_later_to_a_minute_already_written_comes_on_top(store, clock):
    one, other = MinuteSums(store, clock), MinuteSums(store, clock)
    for n in range(5):
        for sums in (one, other):
            sums.add("toy", "s", (1, n))
            assert sums.flush() is True
    over(clock)
    assert one.closed("toy", "s") == other.closed("toy", "s") == [(NOON, (10, 20))]


def test_a_list_of_many_minutes_is_read_whole(clock):
    sums = MinuteSums(open_store("memory://"), clock)
    for n in range(600):
        clock.now = NOON + 60 * n
        sums.add("toy", "s", (n,))
        sums.flush()
    over(clock)
    assert [minute.values for minute in sums.closed("toy", "s")] == [(n,) for n in range(600)]


class Trouble:
    """A store whose saves do not answer: some did all the same."""

    def __init__(self, store, kept):
        self._store, self.kept, self.away = store, kept, True

    def __getattr__(self, name):
        return getattr(self._store, name)

    def save(self, *args):
        if not self.away:
            return self._store.save(*args)
        if self.kept:
            self._store.save(*args)
        raise StoreUnavailable("the reply is lost")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not-kept"])
def test_a_flush_repeated_after_a_lost_reply_counts_once_whoever_wrote_in_between(store, clock, kept):
    trouble = Trouble(store, kept)
    one, other = MinuteSums(trouble, clock), MinuteSums(store, clock)
    one.add("toy", "s", (1, 0.5))
    assert one.flush() is False
    other.add("toy", "s", (1, 0.25))
    assert other.flush() is True
    one.add("toy", "s", (1, 0.125))
    assert one.flush() is False
    trouble.away = False
    assert one.flush() is True
    over(clock)
    assert other.closed("toy", "s") == [(NOON, (3, 0.875))]


def test_sums_wait_for_a_store_that_is_away_and_the_oldest_go_when_too_many_do(clock, caplog):
    store = open_store("memory://")
    trouble = Trouble(store, kept=False)
    sums = MinuteSums(trouble, clock)
    for n in range(MOST_KEPT + 3):
        clock.now = NOON + 60 * n
        sums.add("toy", "s", (1,))
        assert sums.flush() is False
    assert "given up" in caplog.text
    trouble.away = False
    assert sums.flush() is True
    over(clock)
    found = sums.closed("toy", "s")
    assert len(found) == MOST_KEPT
    assert found[0].start == NOON + 60 * 3


def test_a_clock_that_is_set_back_loses_nothing(store, clock):
    sums = MinuteSums(store, clock)
    for moment in (NOON, NOON + 600, NOON, NOON + 1200, NOON):
        clock.now = moment
        sums.add("toy", "s", (1,))
        assert sums.flush() is True
    clock.now = NOON + 2000
    assert sums.closed("toy", "s")[0] == (NOON, (3,))


def test_a_value_that_is_no_number_spoils_no_minute(store, clock):
    sums = MinuteSums(store, clock)
    for value in (0.5, float("nan"), float("inf"), 0.25):
        sums.add("toy", "s", (1, value))
    sums.flush()
    over(clock)
    assert sums.closed("toy", "s") == [(NOON, (2, 0.75))]


def test_threads_that_add_while_others_flush_lose_nothing(store, clock):
    sums = MinuteSums(store, clock)

    def add(_):
        for n in range(500):
            sums.add("toy", "s", (1, 2))
            if n % 50 == 0:
                sums.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert sums.flush() is True
    over(clock)
    assert sums.closed("toy", "s") == [(NOON, (2000, 4000))]


def test_the_thread_flushes_and_what_is_left_is_written_at_a_stop(store, clock):
    sums = MinuteSums(store, clock, minute_s=0.6)
    sums.start()
    sums.add("toy", "s", (1,))
    wait_until(lambda: store.list("~minutes", "toy", None, 10).clients != [], 120, "a flush")
    sums.add("toy", "s", (2,))
    sums.stop()
    clock.now += 2
    assert [minute.values for minute in sums.closed("toy", "s")] == [(3,)]


ADDER = """
import sys
from service.minutes import MinuteSums
from service.stores import open_store

store = open_store(sys.argv[1])
sums = MinuteSums(store, lambda: 1_700_000_040.0)
for n in range(300):
    sums.add("toy", "s", (1, 0.5))
    if n % 3 == 0:
        while not sums.flush():
            pass
sums.stop()
store.close()
"""


def test_processes_that_add_to_one_minute_lose_nothing(tmp_path, clock, begin):
    url = f"sqlite:///{tmp_path}/state"
    adders = [begin([sys.executable, "-c", ADDER, url]) for _ in range(3)]
    assert [adder.wait(300) for adder in adders] == [0, 0, 0]
    store = open_store(url)
    over(clock)
    assert MinuteSums(store, clock).closed("toy", "s") == [(NOON, (900, 450))]
    store.close()


ENDLESS = """
import sys
from service.minutes import MinuteSums
from service.stores import open_store

sums, n = MinuteSums(open_store(sys.argv[1]), lambda: 1_700_000_040.0), 0
while True:
    for _ in range(10):
        sums.add("toy", "s", (1,))
        n += 1
    if sums.flush():
        print(n, flush=True)
"""


def test_a_process_killed_at_any_moment_loses_no_more_than_what_it_had_not_flushed(tmp_path, clock, begin):
    url = f"sqlite:///{tmp_path}/state"
    written = []
    for lines in (1, 7, 20):
        adder = begin([sys.executable, "-c", ENDLESS, url], stdout=subprocess.PIPE, text=True)
        with adder.stdout as told:
            said = [told.readline() for _ in range(lines)]
            adder.kill()
            said += told.readlines()
        adder.wait(60)
        written.append(int(said[-1]))
    over(clock)
    store = open_store(url)
    ((total,),) = [minute.values for minute in MinuteSums(store, clock).closed("toy", "s")]
    store.close()
    assert sum(written) <= total <= sum(written) + 10 * len(written)  # killed after the write, before the word


def test_sums_that_do_not_read_are_begun_anew_and_count_as_none(store, clock, caplog):
    sums, key = MinuteSums(store, clock), minutes.place("toy", "s", NOON)
    store.save(key, None, b"torn....", b"no sums")
    clock.now += 65
    assert sums.closed("toy", "s") == []
    assert "do not read" in caplog.text
    clock.now = NOON
    sums.add("toy", "s", (1,))
    assert sums.flush() is True
    over(clock)
    assert sums.closed("toy", "s") == [(NOON, (1,))]


def test_the_sweep_deletes_minutes_after_a_day(store, clock):
    sums = MinuteSums(store, clock)
    for moment in (NOON, NOON + 43_200):
        clock.now = moment
        sums.add("toy", "s", (1,))
        sums.flush()
    clock.now = NOON + 86_400
    swept, sweep = Swept(), Sweep(registry_of(make_spec(), LeakyIntegrator()), store, store, clock)
    sweep_once(sweep, swept)
    assert (swept.minutes_dropped, len(sums.closed("toy", "s"))) == (0, 2)
    clock.now += 1
    sweep_once(sweep, swept)
    assert swept.minutes_dropped == 1
    assert [minute.start for minute in sums.closed("toy", "s")] == [NOON + 43_200]


def test_no_torn_foreign_or_truncated_sums_are_believed():
    sums = Sums(NOON, 60.0, {b"a" * 8: (1.0, 2.0), b"b" * 8: (3.0,), b"c" * 8: ()})
    whole = minutes.encode(KEY, sums)
    assert minutes.decode(KEY, whole) == sums
    assert sums.total() == (4.0, 2.0)
    torn = [whole[:size] for size in range(len(whole))] + [whole + b"\0"]
    torn += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    torn.append(minutes.encode(KEY._replace(client="another"), sums))
    for blob in torn:
        with pytest.raises(RecordCorrupt):
            minutes.decode(KEY, blob)


@pytest.mark.parametrize("name", ["s@1700000040000x", "s@", "s", "t@1700000040000", "s@-1"])
def test_a_name_that_is_no_minute_of_the_series_is_none(name):
    assert minutes.start_in(name, "s") is None
    assert minutes.start_in("a@b@1500", "a@b") == 1.5
