"""Leaving a Redis alone that does not answer: seldom enough to be no burden, often enough to be back in a second."""

import pytest

from service.stores import redis_outage
from service.stores.redis_outage import LONGEST_S, Outage


@pytest.fixture
def time(monkeypatch):
    """The time as the outage sees it, seconds."""

    class Time:
        now = 1000.0

        def monotonic(self):
            return self.now

    time = Time()
    monkeypatch.setattr(redis_outage, "time", time)
    return time


def waits(outage, time):
    """How long nobody may ask; then exactly one may."""
    begun = time.now
    while outage.ask() is False:
        time.now += 0.001
        assert time.now - begun < 10
    assert [outage.ask() for _ in range(5)] == [False] * 5, "others leave it to the first"
    return time.now - begun


def test_the_pauses_between_two_trials_grow_to_a_second_and_no_further(time):
    outage = Outage()
    outage.failed("away", trial=False)
    pauses = []
    for _ in range(30):
        pauses.append(waits(outage, time))
        outage.failed("still away", trial=True)
    assert pauses[0] <= 0.11
    assert max(pauses) <= LONGEST_S + 0.01
    assert min(pauses[6:]) >= LONGEST_S / 2 - 0.01
    assert len({round(pause, 2) for pause in pauses[6:]}) > 5, "processes that failed together do not try together"


def test_many_that_fail_at_once_are_one_failure(time):
    outage = Outage()
    for _ in range(50):
        outage.failed("away", trial=False)
    assert waits(outage, time) <= 0.11


def test_one_success_ends_it_and_the_next_outage_begins_small(time):
    outage = Outage()
    for _ in range(10):
        outage.failed("away", trial=True)
    outage.succeeded()
    assert (outage.ask(), outage.in_progress) == (None, False)
    outage.failed("away again", trial=False)
    assert waits(outage, time) <= 0.11


def test_a_trial_that_never_ends_keeps_nobody_else_from_trying(time):
    outage = Outage()
    for _ in range(10):
        outage.failed("away", trial=True)
    waits(outage, time)
    assert waits(outage, time) <= LONGEST_S + 0.01
