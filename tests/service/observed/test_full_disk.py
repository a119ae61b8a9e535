"""The log's disk is really full: predicts go on, rows wait, and all of them are there once there is room again."""

import os
from contextlib import ExitStack

import pytest

from tests.chaos.room import FileLimit, small_disk
from tests.service.observed.test_log import LoggedDesk

FIRST = 2500  # rows, of some 80 bytes each: more than FileLimit lets a file have


@pytest.fixture(params=["disk", "limit"])
def desk_and_room(request, tmp_path):
    """A desk that logs, and the room of its journal: a small disk's, or a limit where none can be mounted."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk"))
        desk = LoggedDesk(tmp_path / "disk" / "journal")
        limited = request.param == "limit" or disk is None
        yield desk, FileLimit(lambda: [os.getpid()]) if limited else disk


def send(desk, first, last):
    """One observation for each number, all of one client; their steps are those numbers as well."""
    for value in range(first, last + 1):
        desk.send((float(value), 0.0))


def test_a_disk_that_is_full_for_a_while_loses_no_row(desk_and_room):
    desk, room = desk_and_room
    send(desk, 1, FIRST)
    desk.log.write()
    room.take()
    try:
        send(desk, FIRST + 1, FIRST + 300)
        desk.log.write()
        send(desk, FIRST + 301, FIRST + 400)
        desk.log.write()
        assert desk.counts.logged == FIRST
    finally:
        room.give()
    send(desk, FIRST + 401, FIRST + 500)
    desk.log.stop()
    assert [row[1] for row in desk.rows()] == list(range(1, FIRST + 501))
    assert (desk.counts.logged, desk.counts.lost) == (FIRST + 500, 0)
