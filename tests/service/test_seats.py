"""Seats that the workers of one master share: who has fewest connections, of those who take more."""

import os
from types import SimpleNamespace

import pytest

from service.server.seats import Seats
from service.server.worker import Worker


def in_another_process(work):
    """Runs `work` in a fork of this process, and waits for its end."""
    pid = os.fork()
    if pid == 0:
        ended = 1
        try:
            work()
            ended = 0
        finally:
            os._exit(ended)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_a_worker_tells_is_seen_in_another_process():
    seats = Seats()
    mine, other = seats.take(), seats.take()

    def work():
        other.tell(7)
        other.show()

    in_another_process(work)
    assert mine.least() == 7
    assert other.least() is None, "it is nobody's other"


def test_the_least_is_of_the_others():
    one, two, three = (seats := Seats()).take(), seats.take(), seats.take()
    for seat, connections in ((one, 0), (two, 5), (three, 2)):
        seat.tell(connections)
        seat.show()
    assert [seat.least() for seat in (one, two, three)] == [2, 0, 0]


def test_who_takes_none_does_not_count():
    mine, other = (seats := Seats()).take(), seats.take()
    assert mine.least() is None, "it has not opened its doors yet"
    other.show()
    assert mine.least() == 0
    other.hide()
    other.tell(3)  # connections go while it takes none
    assert mine.least() is None


def test_who_has_not_shown_itself_for_long_does_not_count(monkeypatch):
    mine, other = (seats := Seats()).take(), seats.take()
    now = 5_000
    monkeypatch.setattr("service.server.seats._now_ms", lambda: now)
    other.show()
    now += 900
    assert mine.least() == 0
    now += 100
    assert mine.least() is None


def test_a_seat_that_is_given_back_does_not_count_and_is_taken_again_empty():
    seats = Seats(2)
    mine, dead = seats.take(), seats.take()
    dead.tell(9)
    dead.show()
    seats.give_back(dead)
    assert mine.least() is None
    successor = seats.take()
    assert mine.least() is None
    successor.show()
    assert mine.least() == 0


def test_who_finds_no_seat_sees_nobody_and_is_not_seen():
    seats = Seats(1)
    mine, late = seats.take(), seats.take()
    for seat in (mine, late):
        seat.show()
    assert mine.least() is None
    assert late.least() is None
    seats.give_back(late)
    mine.tell(4)
    assert seats.take().least() is None, "the one seat there is has not become free"


@pytest.mark.parametrize(("reuse_port", "stands_back"), [(False, True), (True, False)])
def test_who_has_a_queue_of_its_own_stands_back_for_nobody(reuse_port, stands_back):
    seats = Seats()
    seat, other = seats.take(), seats.take()
    other.show()
    worker = SimpleNamespace(
        cfg=SimpleNamespace(reuse_port=reuse_port), seat=seat, _house=SimpleNamespace(connections=3)
    )
    assert Worker._has_more_than_others(worker) is stands_back
