"""The lease: one holder at a time, work not done more often than due, whatever clocks and processes do."""

import pytest

from service.core import lease
from service.core.lease import LASTS_S, MARGIN_S, Held, Lease
from service.core.types import ClientKey
from service.stores import open_store
from tests.fakes import SettableClock

EVERY_S = 300.0
KEY = ClientKey("~lease", "sweep", "sweep")


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def store():
    return open_store("memory://")


@pytest.fixture
def one(store, clock):
    return Lease(store, "sweep", clock)


@pytest.fixture
def other(store, clock):
    return Lease(store, "sweep", clock)


def test_one_of_two_takes_it_and_the_other_when_it_was_given_back(one, other):
    assert one.take(EVERY_S) is True
    assert (one.held, other.take(EVERY_S), other.held) == (True, False, False)
    one.give_back(done=False)
    assert (one.held, other.take(EVERY_S)) == (False, True)


def test_finished_work_is_not_due_again_until_its_time(one, other, clock):
    assert one.take(EVERY_S)
    clock.now += 10
    one.give_back(done=True)
    for lease_ in (one, other):
        assert lease_.take(EVERY_S) is False
    clock.now += EVERY_S - 1
    assert other.take(EVERY_S) is False
    clock.now += 1
    assert other.take(EVERY_S) is True


def test_work_broken_off_is_due_at_once(one, other):
    assert one.take(EVERY_S)
    one.give_back(done=False)
    assert other.take(EVERY_S) is True


def test_a_holder_that_is_gone_is_followed_after_its_time_and_a_margin_for_clocks(one, other, clock):
    assert one.take(EVERY_S)
    clock.now += LASTS_S + MARGIN_S
    assert other.take(EVERY_S) is False
    clock.now += 1
    assert other.take(EVERY_S) is True
    assert one.renew() is False
    one.give_back(done=True)
    assert other.held
    assert other.renew() is True


def test_a_holder_that_renews_keeps_it(one, other, clock):
    assert one.take(EVERY_S)
    for _ in range(20):
        clock.now += LASTS_S / 2
        assert one.renew() is True
        assert other.take(EVERY_S) is False


def test_renewing_costs_no_write_while_most_of_the_time_is_left(one, store, clock):
    assert one.take(EVERY_S)
    nonce = store.load(KEY).nonce
    clock.now += LASTS_S / 4
    assert one.renew() is True
    assert store.load(KEY).nonce == nonce
    clock.now += LASTS_S / 4
    assert one.renew() is True
    assert store.load(KEY).nonce != nonce


def test_a_renewal_of_one_that_lost_it_fails_even_by_its_own_clock(one, other, clock):
    assert one.take(EVERY_S)
    clock.now += LASTS_S + MARGIN_S + 1
    assert other.take(EVERY_S)
    clock.now -= LASTS_S / 2 + MARGIN_S + 1  # and back
    assert one.renew() is False


@pytest.mark.parametrize("wrong", [1e9, 86400.0, 3600.0])
def test_a_clock_that_was_far_ahead_holds_nobody_up(one, other, clock, wrong):
    now = clock.now
    clock.now += wrong
    assert one.take(EVERY_S)
    clock.now = now
    assert other.take(EVERY_S) is True
    clock.now += wrong
    assert one.take(EVERY_S)
    one.give_back(done=True)
    clock.now = now
    assert other.take(EVERY_S) is True


def test_of_many_that_try_at_once_one_takes_it(store, clock):
    many = [Lease(store, "sweep", clock) for _ in range(8)]
    assert [lease_.take(EVERY_S) for lease_ in many].count(True) == 1


def test_no_torn_foreign_or_truncated_lease_is_believed_or_holds_anybody_up(one, other, store, caplog):
    assert one.take(EVERY_S)
    whole = store.load(KEY).blob
    torn = [whole[:size] for size in range(len(whole))] + [whole + b"\0"]
    torn += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    torn.append(lease.encode(KEY._replace(client="another"), lease.decode(KEY, whole)))
    for blob in torn:
        caplog.clear()
        assert store.save(KEY, store.load(KEY).nonce, b"torn....", blob)
        assert other.take(EVERY_S) is True
        assert "lease taken over" in caplog.text
        other.give_back(done=False)


def test_a_lease_says_what_it_was_told():
    held = Held(b"h" * 16, 1.5, 2.5)
    assert lease.decode(KEY, lease.encode(KEY, held)) == held
