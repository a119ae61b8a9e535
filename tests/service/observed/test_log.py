"""The observation log: every absorbed predict once, whatever the disk does, at no request's expense."""

import errno
import logging
import os

import pytest

from models.journal import Damage, read
from models.journals import complete_journals
from service.core.errors import RecurveError
from service.observed import log as log_module
from service.observed.log import ObservationLog
from tests.desk import Desk
from tests.fakes import make_spec


class Counts:
    def __init__(self):
        self.logged = self.lost = 0

    def observe_logged(self, rows):
        self.logged += rows

    def observe_lost(self, rows):
        self.lost += rows


class LoggedDesk(Desk):
    """A desk whose predicts are logged, written when the test says so."""

    def __init__(self, folder, models=("toy",), **settings):
        super().__init__(make_spec(("a", "b")))
        self.folder, self.counts = folder, Counts()
        self.log = ObservationLog(folder, models, self.clock, self.counts, **settings)
        self.predictor._witnesses = (self.log,)

    def rows(self):
        """Everything in the journals as (client, step, absorbed, times, values)."""
        found = []
        for path in sorted(self.folder.glob("*")):
            for each in read(path.read_bytes(), Damage()):
                times = None if each.times is None else list(each.times)
                found.append((each.client, each.step, each.absorbed, times, list(each.values)))
        return found


@pytest.fixture
def desk(tmp_path):
    return LoggedDesk(tmp_path)


def test_what_is_absorbed_is_logged_with_its_steps_and_times(desk):
    now = desk.clock.now
    desk.send((1.0, 2.0))
    desk.send((3.0, 4.0), (5.0, 6.0), times=(now - 2, now - 1))
    desk.log.stop()
    assert desk.rows() == [
        ("c", 1, now, None, [1.0, 2.0]),
        ("c", 2, now, [now - 2, now - 1], [3.0, 4.0, 5.0, 6.0]),
    ]
    assert [path.suffix for path in desk.folder.iterdir()] == [".closed"]
    assert (desk.counts.logged, desk.counts.lost) == (3, 0)


def test_retries_refusals_and_histories_are_not_logged(desk):
    desk.prime((0.0, 0.0), (0.0, 1.0))
    desk.send((1.0, 2.0), step=3)
    assert desk.send((1.0, 2.0), step=3).replayed
    with pytest.raises(RecurveError):
        desk.send((1.0, 2.0), step=9)
    desk.log.stop()
    assert [row[1] for row in desk.rows()] == [3]


def test_a_client_that_begins_anew_begins_another_life(desk):
    desk.send((1.0, 2.0))
    desk.clock.now += 10
    desk.send((1.5, 2.0))
    desk.predictor.forget(desk.key)
    desk.clock.now += 10
    desk.send((3.0, 4.0))
    desk.log.stop()
    (path,) = desk.folder.iterdir()
    found = [(each.step, each.begun) for each in read(path.read_bytes(), Damage())]
    now = desk.clock.now
    assert found == [(1, now - 20), (2, now - 20), (1, now)]


@pytest.mark.parametrize(("models", "logged"), [(("other",), 0), (("*",), 1), (("other", "toy"), 1)])
def test_only_the_named_models_are_logged(tmp_path, models, logged):
    desk = LoggedDesk(tmp_path, models)
    desk.send((1.0, 2.0))
    desk.log.stop()
    assert len(desk.rows()) == logged


def test_a_journal_is_closed_when_it_is_old_or_large(tmp_path, monkeypatch):
    desk = LoggedDesk(tmp_path, journal_s=1e-9)
    desk.send((1.0, 2.0))
    desk.log.write()
    assert len(complete_journals(tmp_path)) == 1
    desk = LoggedDesk(tmp_path / "large")
    desk.send((1.0, 2.0))
    desk.log.write()
    assert complete_journals(tmp_path / "large") == []
    monkeypatch.setattr(log_module, "JOURNAL_BYTES", 100)
    desk.send((1.0, 2.0))
    desk.log.write()
    assert len(complete_journals(tmp_path / "large")) == 1
    desk.send((5.0, 6.0))  # the next journal says anew whose features these are
    desk.log.stop()
    assert [row[1] for row in desk.rows()] == [1, 2, 3]


@pytest.mark.parametrize("call", ["write", "fsync", "open", "rename"])
def test_a_full_disk_fails_no_predict_and_loses_nothing_if_it_is_over_in_time(desk, monkeypatch, caplog, call):
    desk.send((1.0, 2.0))
    desk.log.write()
    real, full = getattr(os, call), OSError(errno.ENOSPC, "No space left on device")
    half = [True]

    def refuse(*arguments, **more):
        if call == "write" and half[0]:  # some bytes fit
            half[0] = False
            return real(arguments[0], arguments[1][:7])
        raise full

    if call in ("open", "rename"):
        desk.log._journal_s = 0.0  # so that a journal is closed and another begun
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        for value in (3.0, 4.0):
            desk.send((value, 2.0))
            desk.log.write()
    desk.send((5.0, 2.0))
    desk.log.stop()
    assert [row[1] for row in desk.rows()] == [1, 2, 3, 4]
    assert (desk.counts.logged, desk.counts.lost) == (4, 0)
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    if call != "rename":  # there each journal is another's trouble
        assert len(said) == 1, "one line for an outage, not one a second"


def test_what_can_not_wait_any_longer_is_lost_and_counted(desk, monkeypatch):
    monkeypatch.setattr(log_module, "MOST_BYTES", 300)
    for value in range(10):
        desk.send((float(value), 2.0))
    desk.log.write()
    kept = desk.counts.logged
    assert 0 < kept < 10
    assert desk.counts.lost == 10 - kept
    desk.send((1.0, 2.0))
    desk.log.stop()
    assert [row[1] for row in desk.rows()] == [*range(1, kept + 1), 11]


def test_no_more_waits_while_the_disk_is_stuck_than_is_promised(desk, monkeypatch):
    """Neither in one heap nor, tried in vain and new, in two."""
    monkeypatch.setattr(log_module, "MOST_BYTES", 1000)

    def waits():
        return sum(map(len, (*desk.log._unsynced, *desk.log._waiting)))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        for value in range(60):
            desk.send((float(value), 2.0))
            if value == 30:
                desk.log.write()
            assert waits() <= 1000 + 200  # and who is who
    desk.log.write()
    desk.log.write()
    assert waits() == 0
    assert desk.counts.logged > 0 < desk.counts.lost
    assert desk.counts.logged + desk.counts.lost == 60
    desk.send((1.0, 2.0))
    desk.log.stop()
    assert desk.rows()[-1][1] == 61


def test_no_more_is_noted_than_is_promised_while_the_thread_is_stuck_in_the_disk(desk, monkeypatch):
    monkeypatch.setattr(log_module, "MOST_NOTED", 10)
    monkeypatch.setattr(log_module, "MOST_BYTES", 1000)
    for value in range(60):  # and nobody writes
        desk.send((float(value), 2.0))
        assert len(desk.log._noted) <= 10
        assert sum(map(len, desk.log._waiting)) <= 1000 + 200
    desk.log.stop()
    kept = [row[1] for row in desk.rows()]
    assert 10 < len(kept) == len(set(kept)) < 60
    assert (desk.counts.logged, desk.counts.lost) == (len(kept), 60 - len(kept))


def test_many_observations_of_one_request_are_packed_at_once(desk):
    """So that a bounded number of requests is a bounded number of bytes."""
    desk.send(*((float(value), 0.0) for value in range(100)))
    assert len(desk.log._noted) == 0
    desk.send((5.0, 6.0))
    desk.log.stop()
    assert [(row[1], len(row[4])) for row in desk.rows()] == [(1, 200), (101, 2)]


def test_a_disk_that_stays_full_loses_what_waits_at_the_stop(desk, monkeypatch):
    desk.send((1.0, 2.0))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        desk.log.write()
        desk.send((1.0, 2.0))
        desk.log.stop()
    assert (desk.counts.logged, desk.counts.lost) == (0, 2)


def test_a_deleted_journal_is_replaced_by_another(desk):
    desk.send((1.0, 2.0))
    desk.log.write()
    next(desk.folder.iterdir()).unlink()
    desk.send((3.0, 2.0))
    desk.log.write()
    desk.log.stop()
    assert [row[1] for row in desk.rows()] == [2]


def test_the_thread_writes_without_being_asked(desk):
    from tests.serving import wait_until

    desk.log.start()
    desk.send((1.0, 2.0))
    wait_until(lambda: desk.counts.logged == 1, 120, "the row is written")
    desk.log.stop()
