"""The sweeper: one of many sweeps, and whatever it meets, no client that is heard of loses a step."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from service.core.errors import StoreUnavailable
from service.core.lease import Lease
from service.core.lifetime import WEEK_S
from service.core.predictor import Limits, Predictor
from service.core.sweep import Sweep, Swept
from service.core.types import ClientKey
from service.stores import open_store
from service.sweeper import Sweeper
from tests.desk import Desk, request
from tests.fakes import LeakyIntegrator, SettableClock, make_spec, registry_of
from tests.service.sweeping import sweep_once
from tests.serving import ROOT, wait_until

BOUND_S = 120.0


class Observed:
    """What a sweeper told."""

    def __init__(self):
        self.sweeping, self.sweeps = [], []

    def observe_sweeping(self, sweeping):
        self.sweeping.append(sweeping)

    def observe_swept(self, swept, *, done):
        self.sweeps.append((dict(swept.buried), done))


def sweeper_of(desk, observed, every_s=300.0, clock=None):
    sweep = Sweep(desk.registry, desk.store, desk.store, desk.clock)
    return Sweeper(sweep, Lease(desk.store, "sweep", clock or desk.clock), observed, every_s)


@pytest.fixture
def expired():
    """A desk with 250 clients, all expired."""
    desk = Desk(make_spec())
    for n in range(250):
        desk.predictor.predict(desk.key._replace(client=f"c{n}"), request(1))
    desk.clock.now += WEEK_S + 61
    return desk


def test_of_two_sweepers_one_sweeps_and_not_before_it_is_due(expired):
    seen = Observed(), Observed()
    one, other = (sweeper_of(expired, observed) for observed in seen)
    assert one.look() is True
    assert [one.look(), other.look()] == [False, False]
    assert seen[0].sweeps == [({"toy": 250}, True)]
    assert seen[0].sweeping == [True, False]
    expired.clock.now += 300
    assert [other.look(), one.look()] == [True, False]
    assert seen[1].sweeps == [({}, True)]


def test_a_sweeper_sweeps_in_its_thread_and_ends_when_it_is_stopped(expired):
    observed = Observed()
    sweeper = sweeper_of(expired, observed, every_s=0.02, clock=time.time)
    before = set(threading.enumerate())
    sweeper.start()
    wait_until(lambda: ({"toy": 250}, True) in observed.sweeps, BOUND_S, "a sweep")
    sweeper.stop()
    assert set(threading.enumerate()) <= before
    assert expired.store.count("default", "toy") == 0


def test_a_sweeper_stopped_in_the_middle_lets_another_begin_at_once(expired):
    observed = Observed()
    one, other = sweeper_of(expired, Observed()), sweeper_of(expired, observed)
    one._stopped.set()  # it ends after the slice it is at
    assert one.look() is False
    assert 0 < expired.store.count("default", "toy") < 250
    assert other.look() is True
    assert expired.store.count("default", "toy") == 0


def test_a_store_in_trouble_breaks_a_sweep_off_and_the_next_one_ends_it(expired, caplog):
    observed, load, left = Observed(), expired.store.load, [150]

    def failing(key):
        left[0] -= 1
        if left[0] == 0:
            raise StoreUnavailable("the store is away")
        return load(key)

    sweeper = sweeper_of(expired, observed)
    expired.store.load = failing
    assert sweeper.look() is False
    assert observed.sweeps[0][1] is False
    assert observed.sweeping == [True, False]
    assert "broken off" in caplog.text
    assert sweeper.look() is True
    assert sum(buried["toy"] for buried, _ in observed.sweeps) == 250


def test_a_store_that_is_away_is_asked_again_later(expired):
    observed, sweeper, load = Observed(), None, expired.store.load

    def away(key):
        raise StoreUnavailable("the store is away")

    sweeper = sweeper_of(expired, observed)
    expired.store.load = away
    assert sweeper.look() is False
    expired.store.load = load
    assert observed.sweeps == []
    assert sweeper.look() is True


def test_a_sweeper_whose_lease_was_taken_over_stops(expired):
    sweeper = sweeper_of(expired, Observed())
    sweep, slices = sweeper._sweep.slice, []

    def slow(after, swept):
        slices.append(after)
        expired.clock.now += 1000  # longer than any lease lasts: another takes it
        assert Lease(expired.store, "sweep", expired.clock).take(300.0) is True
        return sweep(after, swept)

    sweeper._sweep.slice = slow
    assert sweeper.look() is False
    assert len(slices) == 1


class Follower:
    """Sends one client's numbered observations, and knows what each has to be answered."""

    def __init__(self, name):
        self.key = ClientKey("default", "toy", name)
        self.step, self.state, self.statuses = 0, np.float32(0), Counter()

    def send(self, predictor, value):
        self.step += 1
        answer = predictor.predict(self.key, request(value, step=self.step))
        assert answer.step == self.step
        self.statuses[answer.state.status] += 1
        if answer.state.status != "carried":
            assert answer.state.reason == ("expired" if self.step > 1 else None)
            self.state = np.float32(0)
        half = np.float32(0.5)
        self.state = half * self.state + half * np.float32(value)
        assert answer.y[-1, 0, 0] == self.state


def test_threads_that_sweep_and_threads_that_send_never_lose_a_step(tmp_path):
    clock, registry = SettableClock(), registry_of(make_spec(), LeakyIntegrator())
    store = open_store(f"sqlite:///{tmp_path}/state")
    predictors = [Predictor(registry, store, clock, Limits(idle_ttl_s=10.0)) for _ in range(2)]
    sweep, swept, stop = Sweep(registry, store, store, clock, idle_ttl_s=10.0), Swept(), threading.Event()

    def sweeping():
        while not stop.is_set():
            sweep_once(sweep, swept)

    def sending(thread):
        followers = [Follower(f"c{thread}-{n}") for n in range(12)]
        rng = random.Random(thread)
        for _ in range(400):
            rng.choice(followers).send(rng.choice(predictors), rng.uniform(-9, 9))
            clock.now += 0.25  # each is heard of every 3 s or so by one thread's sending, and sometimes not for 11
        return sum((follower.statuses for follower in followers), Counter())

    with ThreadPoolExecutor(5) as pool:
        sweepers = [pool.submit(sweeping) for _ in range(2)]
        senders = [pool.submit(sending, thread) for thread in range(3)]
        try:
            statuses = sum((sender.result() for sender in senders), Counter())
        finally:
            stop.set()
        for sweeper in sweepers:
            sweeper.result()
    store.close()
    assert swept.buried["toy"] > 20
    assert statuses["restarted"] > 20
    assert statuses["carried"] > 20


def test_sweepers_in_other_processes_killed_at_any_moment_never_cost_a_client_a_step(tmp_path, begin):
    url, ttl_s, seed = f"sqlite:///{tmp_path}/state", 0.05, random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    store = open_store(url)
    registry = registry_of(make_spec(), LeakyIntegrator())
    predictor = Predictor(registry, store, time.time, Limits(idle_ttl_s=ttl_s))
    followers = [Follower(f"c{n}") for n in range(150)]

    def sweeper():
        command = [sys.executable, "-m", "tests.service.sweeping", "without_end", url, str(ttl_s)]
        return begin(command, stdout=subprocess.PIPE, text=True)

    def send(n):
        for _ in range(n):
            rng.choice(followers[: rng.choice((10, 150))]).send(predictor, rng.uniform(-9, 9))

    buried = 0
    for _ in range(3):
        sweepers = [sweeper(), sweeper()]
        try:
            for one in sweepers:
                one.stdout.readline()  # it is at work
            send(rng.randrange(400, 1000))
        finally:
            for one in sweepers:
                one.kill()
                said = one.communicate(timeout=BOUND_S)[0].split()
                buried += int(said[-1]) if said else 0
        send(50)
    statuses = sum((follower.statuses for follower in followers), Counter())
    store.close()
    assert buried > 50
    assert statuses["restarted"] > 50
    assert statuses["carried"] > 50


def test_a_full_disk_breaks_sweeps_off_and_costs_no_client_its_number(tmp_path):
    command = [sys.executable, "-m", "tests.service.sweeping", "without_room", f"sqlite:///{tmp_path}/state", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    clients, broken, steps = done.stdout.split(maxsplit=2)
    assert int(clients) > 50
    assert int(broken) > 0
    assert steps.strip() == "{41}"


def test_requests_are_not_held_up_while_a_large_store_is_swept(tmp_path):
    """A sweep works a tenth of the time, a slice at a time: what it reads is a hundred records."""
    desk = Desk(make_spec())
    store = open_store(f"sqlite:///{tmp_path}/state")
    for n in range(1000):
        store.save(ClientKey("default", "toy", f"c{n}"), None, b"n" * 8, bytes(4600))
    slices, scan = [], store.scan

    def scanning(after, limit):
        began = time.perf_counter()
        found = scan(after, limit)
        slices.append((began, time.perf_counter(), len(found.entries)))
        return found

    store.scan = scanning
    sweep = Sweep(desk.registry, store, store, desk.clock)
    sweeper = Sweeper(sweep, Lease(store, "sweep", desk.clock), Observed(), 300.0)
    assert sweeper.look() is True
    store.close()
    assert sum(size for _, _, size in slices) == 1001  # the lease too
    assert max(size for _, _, size in slices) <= 100
    pauses = [after[0] - before[1] for before, after in pairwise(slices)]
    assert all(pause > 2 * (end - began) for pause, (began, end, _) in zip(pauses, slices, strict=False))
