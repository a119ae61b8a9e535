"""The sqlite store in trouble: full disks, lost replies, stuck writers, long logs. Nothing acknowledged is lost."""

import contextlib
import fcntl
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.core.errors import StoreUnavailable
from service.core.patience import WouldWait, hurried
from service.core.ports import Save, Stored
from service.core.types import ClientKey
from service.stores import open_store
from service.stores.sqlite import SYNCHRONOUS, SqliteStore
from service.stores.sqlite_checkpoint import Checkpointer
from service.stores.sqlite_folder import PAGE_BYTES, SHARDS, lock_file, prepare, shard_file
from service.stores.sqlite_log import Log
from service.stores.sqlite_shard import Shard
from service.stores.sqlite_turn import Turn

ROOT = Path(__file__).parents[2]
KEY = ClientKey("tenant", "sensor", "roof-7")
PATH = KEY.path()


def until(condition, bound_s=60.0):
    """Polls until `condition` holds; False if it has not within the bound."""
    end = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def folder(tmp_path):
    prepare(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def store(folder):
    store = SqliteStore(folder)
    yield store
    store.close()


@pytest.fixture
def shard(folder):
    shard = Shard(shard_file(folder, 0), "NORMAL")
    yield shard
    shard.close()


def log_bytes(shard):
    return Path(f"{shard.file}-wal").stat().st_size


def checkpoint_threads():
    return [thread for thread in threading.enumerate() if thread.name == "recurve-checkpoint"]


def worker(url, what):
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.workers", url, what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_a_full_disk_refuses_what_has_no_room_and_the_store_goes_on_when_there_is_room(tmp_path):
    url = f"sqlite:///{tmp_path}/state"
    acknowledged = int(worker(url, "fill"))
    assert acknowledged > 50
    store = open_store(url)
    assert store.count("tenant", "sensor") == acknowledged
    store.close()
    for number in range(SHARDS):
        with contextlib.closing(sqlite3.connect(shard_file(tmp_path / "state", number))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_opens_on_a_full_disk_and_goes_on_when_there_is_room(store, folder):
    assert store.save(KEY, None, b"1" * 8, b"41") is True
    store.close()
    refusal, counted = worker(f"sqlite:///{folder}", "open_without_room").splitlines()
    assert "once there is room" in refusal
    assert counted == "42"


class LosesReplies(sqlite3.Connection):
    """Does what it is told and then claims the disk failed, or fails before doing it; `then` is done before it says."""

    lose: str | None = None
    then = staticmethod(lambda: None)

    def execute(self, statement, *values):
        stores = statement == "COMMIT" or (statement.startswith(("INSERT", "UPDATE")) and not self.in_transaction)
        lose = LosesReplies.lose if stores else None
        LosesReplies.lose = None if lose else LosesReplies.lose
        if lose != "before":
            done = super().execute(statement, *values)
        if lose is not None:
            LosesReplies.then()
            raise sqlite3.OperationalError("disk I/O error")
        return done


class LossyShard(Shard):
    def connect(self):
        super().connect().close()
        return sqlite3.connect(self.file, factory=LosesReplies, isolation_level=None, check_same_thread=False)


@pytest.fixture
def lossy(folder):
    shard = LossyShard(shard_file(folder, 0), "NORMAL")
    yield shard
    LosesReplies.lose, LosesReplies.then = None, staticmethod(lambda: None)
    shard.close()


def test_a_save_whose_reply_was_lost_is_read_back_and_acknowledged(lossy):
    LosesReplies.lose = "after"
    assert lossy.save(PATH, None, b"1" * 8, b"first") is True
    LosesReplies.lose = "after"
    assert lossy.save(PATH, b"1" * 8, b"2" * 8, b"second") is True
    assert lossy.load(PATH) == Stored(b"2" * 8, b"second")


def test_a_save_that_did_not_happen_is_read_back_and_refused(lossy):
    LosesReplies.lose = "before"
    with pytest.raises(StoreUnavailable) as caught:
        lossy.save(PATH, None, b"1" * 8, b"first")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert lossy.load(PATH) is None
    assert lossy.save(PATH, None, b"1" * 8, b"first") is True
    LosesReplies.lose = "before"
    with pytest.raises(StoreUnavailable):
        lossy.save(PATH, b"1" * 8, b"2" * 8, b"second")
    assert lossy.load(PATH) == Stored(b"1" * 8, b"first")
    assert "in_doubt" not in caught.value.extra


@pytest.mark.parametrize("lose", ["before", "after"])
def test_a_save_whose_reply_was_lost_while_others_wrote_is_in_doubt(lossy, lose):
    assert lossy.save(PATH, None, b"1" * 8, b"first") is True

    def overtake():
        with contextlib.closing(sqlite3.connect(lossy.file, isolation_level=None)) as other:
            other.execute("UPDATE records SET nonce=?, blob=?", (b"3" * 8, b"other"))

    LosesReplies.lose, LosesReplies.then = lose, staticmethod(overtake)
    with pytest.raises(StoreUnavailable) as caught:
        lossy.save(PATH, b"1" * 8, b"2" * 8, b"second")
    assert caught.value.extra == {"in_doubt": True}
    assert lossy.load(PATH) == Stored(b"3" * 8, b"other")


def test_a_save_whose_reply_was_lost_and_that_can_not_be_read_back_is_in_doubt(lossy, folder):
    assert lossy.save(PATH, None, b"1" * 8, b"first") is True
    aside = folder / "aside"

    def unreadable():
        shard_file(folder, 0).rename(aside)
        shard_file(folder, 0).mkdir()

    LosesReplies.lose, LosesReplies.then = "after", staticmethod(unreadable)
    with pytest.raises(StoreUnavailable) as caught:
        lossy.save(PATH, b"1" * 8, b"2" * 8, b"second")
    assert caught.value.extra == {"in_doubt": True}


def test_a_save_to_a_file_that_does_not_open_is_not_in_doubt(store, folder):
    """It was never begun, though it can't be read back either."""
    for number in range(SHARDS):
        shard_file(folder, number).unlink()
    with pytest.raises(StoreUnavailable) as caught:
        store.save(KEY, None, b"1" * 8, b"first")
    assert "in_doubt" not in caught.value.extra


def many(saves):
    """Saves as a shard takes them: their paths, and what else there is to say."""
    return [path for path, *_ in saves], [Save(None, *rest) for _, *rest in saves]


def test_many_saves_whose_reply_was_lost_are_read_back_and_acknowledged_or_none_of_them_is_stored(lossy):
    paths = [f"t/m/client-{n}" for n in range(5)]
    saves = [(path, None, bytes([n]) * 8, b"first") for n, path in enumerate(paths)]
    LosesReplies.lose = "before"
    with pytest.raises(StoreUnavailable, match="disk"):
        lossy.save_many(*many(saves))
    assert lossy.load_many(paths) == [None] * 5
    LosesReplies.lose = "after"
    assert lossy.save_many(*many([*saves, (PATH, b"0" * 8, b"1" * 8, b"stale")])) == [True] * 5 + [False]
    assert [stored.blob for stored in lossy.load_many(paths)] == [b"first"] * 5


def test_many_records_that_are_all_replaced_have_one_statement_whose_lost_reply_is_read_back(lossy):
    paths = [f"t/m/client-{n}" for n in range(5)]
    assert lossy.save_many(*many([(path, None, b"1" * 8, b"first") for path in paths])) == [True] * 5
    saves = [(path, b"1" * 8, b"2" * 8, b"second" * n) for n, path in enumerate(paths)]
    LosesReplies.lose = "before"
    with pytest.raises(StoreUnavailable, match="disk"):
        lossy.save_many(*many(saves))
    assert lossy.load_many(paths) == [Stored(b"1" * 8, b"first")] * 5
    LosesReplies.lose = "after"
    assert lossy.save_many(*many(saves)) == [True] * 5
    assert lossy.load_many(paths) == [Stored(b"2" * 8, b"second" * n) for n in range(5)]


@pytest.mark.parametrize("stale", [0, 3, 6])
@pytest.mark.parametrize("missing", [False, True])
def test_of_many_records_those_that_others_wrote_or_deleted_stay_and_the_rest_is_replaced(shard, stale, missing):
    paths = [f"t/m/client-{n}" for n in range(7)]
    assert shard.save_many(*many([(path, None, b"1" * 8, b"first") for path in paths])) == [True] * 7
    if missing:
        assert shard.delete(paths[stale])
    else:
        assert shard.save(paths[stale], b"1" * 8, b"9" * 8, b"other")
    saves = [(path, b"1" * 8, b"2" * 8, b"second") for path in paths]
    assert shard.save_many(*many(saves)) == [n != stale for n in range(7)]
    kept = None if missing else Stored(b"9" * 8, b"other")
    assert shard.load_many(paths) == [kept if n == stale else Stored(b"2" * 8, b"second") for n in range(7)]
    assert shard.save_many(*many(saves)) == [n != stale for n in range(7)]  # the same again is harmless


def test_many_saves_that_fail_leave_no_transaction_behind(shard):
    with pytest.raises(StoreUnavailable):
        shard.save_many(*many([(PATH, None, b"1" * 8, b"first"), ("other", None, b"1" * 8, object())]))
    with pytest.raises(TypeError):
        shard.save_many(*many([(PATH, None, b"1" * 8, b"first"), ("other", b"0" * 8, b"1" * 8, 7)]))
    with contextlib.closing(sqlite3.connect(shard.file, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    assert shard.load(PATH) is None
    assert shard.save_many(*many([(PATH, None, b"1" * 8, b"first")])) == [True]


def test_a_full_disk_refuses_many_saves_together_and_keeps_what_was_acknowledged(tmp_path):
    url = f"sqlite:///{tmp_path}/state"
    acknowledged = int(worker(url, "fill_many"))
    assert acknowledged > 50
    with contextlib.closing(open_store(url)) as store:
        assert store.count("tenant", "sensor") >= acknowledged


def test_a_writer_that_never_ends_its_turn_costs_others_two_seconds_and_readers_nothing(store, folder):
    assert store.save(KEY, None, b"1" * 8, b"first") is True
    with contextlib.ExitStack() as stuck:
        for number in range(SHARDS):
            lock = stuck.enter_context(lock_file(shard_file(folder, number)).open("rb+"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.load(KEY).blob == b"first"  # who waited for a turn would wait in vain
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="2 s"):
            store.save(KEY, b"1" * 8, b"2" * 8, b"second")
        assert time.monotonic() - begun > 1.9
    assert store.save(KEY, b"1" * 8, b"2" * 8, b"second") is True


def test_another_programs_lock_on_the_file_is_waited_for_and_then_unavailable(shard):
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    with contextlib.closing(sqlite3.connect(shard.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            shard.save(PATH, b"1" * 8, b"2" * 8, b"second")
        other.execute("ROLLBACK")
    assert shard.save(PATH, b"1" * 8, b"2" * 8, b"second") is True


def test_a_file_replaced_by_rubbish_is_unavailable_and_a_repaired_one_is_found_again(shard, folder):
    whole = shard_file(folder, 1).read_bytes()
    shard.file.write_bytes(b"rubbish" * 5000)
    with pytest.raises(StoreUnavailable):
        shard.load(PATH)
    shard.file.write_bytes(whole)
    assert shard.load(PATH) is None
    assert shard.save(PATH, None, b"1" * 8, b"first") is True


def test_durability_names_how_often_the_disk_is_waited_for(folder):
    for durability, level in (("process", 1), ("power", 2)):
        shard = Shard(shard_file(folder, 0), SYNCHRONOUS[durability])
        with contextlib.closing(shard.connect()) as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
            assert connection.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    store = SqliteStore(folder, "power")
    assert store.save(KEY, None, b"1" * 8, b"first") is True
    assert store.load(KEY) == Stored(b"1" * 8, b"first")
    store.close()


def log_salt(shard):
    """What SQLite draws anew each time it begins a log anew (sqlite.org/fileformat2.html#walformat)."""
    return Path(f"{shard.file}-wal").read_bytes()[16:24]


@pytest.mark.parametrize("moved_before", [False, True])
def test_no_writer_begins_the_log_anew_while_it_is_being_moved(shard, moved_before):
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    log = Log(shard)
    with contextlib.closing(shard.connect()) as another:

        def move_all():
            busy, logged, moved = another.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            assert busy == 0
            assert moved == logged

        if moved_before:
            move_all()
        with log.continued():
            salt = log_salt(shard)
            move_all()  # without the reader the next save would begin anew
            assert shard.save(PATH, b"1" * 8, b"2" * 8, b"second") is True
            assert log_salt(shard) == salt
    assert log.move() is True
    assert shard.save(PATH, b"2" * 8, b"3" * 8, b"third") is True
    assert log_salt(shard) != salt
    log.close()


def test_of_two_checkpointers_the_one_whose_turn_it_is_works(shard, folder):
    turn = Turn(folder / "checkpoint.lock")
    assert turn.try_take() is True
    checkpointer = Checkpointer([shard], folder / "checkpoint.lock", every_s=0.002)
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    shard.full = True
    checkpointer.start()
    assert not until(lambda: not shard.full, bound_s=0.2)
    turn.close()
    assert until(lambda: not shard.full)
    checkpointer.close()


def test_the_checkpointer_keeps_a_log_in_steady_use_short(shard, folder):
    checkpointer = Checkpointer([shard], folder / "checkpoint.lock", every_s=0.002, max_log_bytes=200_000)
    checkpointer.start()
    blob, nonce, cuts, longest, before = secrets.token_bytes(4600), None, 0, 0, 0

    def write_on():
        nonlocal nonce, cuts, longest, before
        for _ in range(50):
            fresh = secrets.token_bytes(8)
            assert shard.save(PATH, nonce, fresh, blob) is True
            nonce, size = fresh, log_bytes(shard)
            cuts, longest, before = cuts + (size < before), max(longest, size), size
        return cuts >= 5

    assert until(write_on)
    assert longest < 50_000_000
    assert until(lambda: not shard.dirty and not shard.full)
    checkpointer.close()
    assert shard.load(PATH) == Stored(nonce, blob)
    with contextlib.closing(sqlite3.connect(f"file:{shard.file}?immutable=1", uri=True)) as file_alone:
        assert file_alone.execute("SELECT nonce FROM records").fetchone() == (nonce,)


def test_on_a_disk_that_was_full_a_writer_makes_room_before_it_takes_any(shard):
    blob = secrets.token_bytes(4600)
    for _ in range(20):
        assert shard.save(secrets.token_hex(4), None, b"1" * 8, blob) is True
    long, shard.full = log_bytes(shard), True
    assert shard.save(PATH, None, b"1" * 8, blob) is True
    assert log_bytes(shard) < long / 4
    assert shard.full is False


def test_room_is_made_by_one_who_can_wait_for_the_disk(shard):
    """A log may be of many megabytes: who serves everybody else meanwhile does not move it."""
    for _ in range(20):
        assert shard.save(secrets.token_hex(4), None, b"1" * 8, b"a record") is True
    long, shard.full = log_bytes(shard), True
    with hurried(), pytest.raises(WouldWait):
        shard.save(PATH, None, b"1" * 8, b"first")
    assert shard.load(PATH) is None
    assert log_bytes(shard) == long
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    assert shard.full is False


def test_a_reader_that_keeps_the_log_of_a_full_disk_holds_no_writer_up(shard, monkeypatch):
    monkeypatch.setattr("service.stores.sqlite_shard.WAIT_S", 20.0)
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    with contextlib.closing(sqlite3.connect(shard.file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
        assert shard.save(PATH, b"1" * 8, b"2" * 8, b"second") is True
        shard.full, begun = True, time.monotonic()
        assert shard.save(PATH, b"2" * 8, b"3" * 8, b"third") is True
        assert time.monotonic() - begun < 10.0  # not the twenty seconds that a lock is waited for here
        assert shard.full is True  # the checkpointer sees to it
        reader.execute("ROLLBACK")
    assert shard.load(PATH) == Stored(b"3" * 8, b"third")


def test_a_log_that_met_a_full_disk_is_cut(shard, folder):
    checkpointer = Checkpointer([shard], folder / "checkpoint.lock", every_s=0.002)
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    assert log_bytes(shard) > 0
    shard.full = True
    checkpointer.start()
    assert until(lambda: not shard.full)
    assert log_bytes(shard) == 0
    checkpointer.close()


class AwayShard(Shard):
    """A shard whose file can't be opened while it is away."""

    away = True
    attempts = 0

    def connect(self):
        self.attempts += 1
        if self.away:
            raise sqlite3.OperationalError("unable to open database file")
        return super().connect()


def test_the_checkpointer_tries_again_after_trouble_until_it_succeeds(folder):
    shard = AwayShard(shard_file(folder, 0), "NORMAL")
    shard.dirty = True
    checkpointer = Checkpointer([shard], folder / "checkpoint.lock", every_s=0.002)
    checkpointer.start()
    assert until(lambda: shard.attempts >= 3)
    shard.away = False
    assert shard.save(PATH, None, b"1" * 8, b"first") is True
    assert until(lambda: not shard.dirty)
    checkpointer.close()
    shard.close()


def test_nothing_runs_and_nothing_is_open_before_the_first_save_and_after_close(folder):
    others = set(checkpoint_threads())  # of stores that other tests closed: such a thread may still be at its end

    def begun():
        return set(checkpoint_threads()) - others

    store = SqliteStore(folder)
    assert (opened_in(folder), begun()) == ([], set())
    assert store.load(KEY) is None
    assert begun() == set()
    assert store.save(KEY, None, b"1" * 8, b"first") is True
    assert opened_in(folder) != []
    assert len(begun()) == 1
    store.close()
    assert until(lambda: begun() == set())
    assert opened_in(folder) == []


def opened_in(folder):
    """What this process has open in `folder`."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread's, closed meanwhile
            links.append(descriptor.readlink())
    return [link for link in links if link.is_relative_to(folder)]
