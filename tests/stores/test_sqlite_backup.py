"""A backup of a sqlite store in use is a store: every record whole, as it stood between the begin and the end."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.core.types import ClientKey
from service.moving.transfer import slices
from service.stores import open_store
from service.stores.sqlite_backup import REPORT, BackupFailed, back_up
from service.stores.sqlite_folder import PAGE_BYTES, SETTINGS, SHARDS, shard_file
from tests.held.process import held, stop
from tests.serving import wait_until

ROOT = Path(__file__).parents[2]
NOW = "2026-01-01T00:00:00Z"
BOUND_S = 120.0
SIZE = 3000


def key(number):
    return ClientKey("tenant", "sensor", f"client-{number}")


def blob(number, step):
    """A record that knows whose it is and how far it came."""
    return f"{number}:{step}:".encode().ljust(SIZE, b"x")


def fill(folder, many, step=0):
    store = open_store(f"sqlite:///{folder}")
    for number in range(many):
        assert store.save(key(number), None, secrets.token_bytes(8), blob(number, step))
    store.close()


def content(folder):
    store = open_store(f"sqlite:///{folder}")
    try:
        return {one.key: one.blob for entries, _ in slices(store) for one in entries}
    finally:
        store.close()


class Writers:
    """Four threads, each moving its own clients on, as fast as they can; `acknowledged` is each client's last step."""

    def __init__(self, store, many):
        self.acknowledged = [0] * many
        self._store, self._many, self._stop = store, many, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(range(first, many, 4),)) for first in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, numbers):
        nonces = {number: self._store.load(key(number)).nonce for number in numbers}
        while not self._stop.is_set():
            for number in numbers:
                new, step = secrets.token_bytes(8), self.acknowledged[number] + 1
                assert self._store.save(key(number), nonces[number], new, blob(number, step))
                nonces[number] = new
                self.acknowledged[number] = step


def test_a_copy_taken_while_four_threads_write_has_every_client_as_it_stood_meanwhile(tmp_path):
    many = 1000
    fill(tmp_path / "state", many)
    store = open_store(f"sqlite:///{tmp_path}/state")
    with Writers(store, many) as writers:
        for number in range(4):
            wait_until(lambda: min(writers.acknowledged) > 0, BOUND_S, "every client's first step")
            before = list(writers.acknowledged)
            copy = back_up(tmp_path / "state", tmp_path / f"copy-{number}", NOW)
            after = list(writers.acknowledged)
            assert sum(copy.records) == many
            found = content(tmp_path / f"copy-{number}")
            assert len(found) == many
            for client in range(many):
                of, step, rest = found[key(client)].split(b":", 2)
                assert (int(of), rest) == (client, b"x" * (SIZE - len(of) - len(step) - 2))
                assert before[client] <= int(step) <= after[client] + 1, "one more may be stored, its reply under way"
        assert sum(after) > sum(before), "they wrote on meanwhile"
    store.close()
    final = {key(client): blob(client, writers.acknowledged[client]) for client in range(many)}
    assert content(tmp_path / "state") == final


def test_a_copy_is_a_store_that_goes_on_by_itself(tmp_path):
    fill(tmp_path / "state", 50)
    told = []
    copy = back_up(tmp_path / "state", tmp_path / "deep" / "copy", NOW, told.append)
    assert content(tmp_path / "deep" / "copy") == content(tmp_path / "state")
    assert (sum(copy.records), sum(told)) == (50, copy.size)
    store = open_store(f"sqlite:///{tmp_path}/deep/copy")
    stored = store.load(key(1))
    assert store.save(key(1), stored.nonce, b"12345678", b"on its own")
    store.close()
    assert content(tmp_path / "state")[key(1)] == blob(1, 0)


def test_a_copy_tells_what_is_in_it(tmp_path):
    fill(tmp_path / "state", 50)
    back_up(tmp_path / "state", tmp_path / "copy", NOW)
    report = json.loads((tmp_path / "copy" / REPORT).read_text())
    assert (report["format"], report["created"], report["records"]) == ("recurve-backup/1", NOW, 50)
    assert [shard["file"] for shard in report["shards"]] == [f"shard-{number}.db" for number in range(SHARDS)]
    for shard in report["shards"]:
        assert hashlib.sha256((tmp_path / "copy" / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]


def test_what_is_only_in_the_log_yet_is_copied(tmp_path):
    """A store that was killed: nothing of its logs has been moved into its files."""
    script = (
        "import sys; from tests.stores.test_sqlite_backup import *\n"
        "store = open_store(f'sqlite:///{sys.argv[1]}')\n"
        "for number in range(50): store.save(key(number), None, secrets.token_bytes(8), blob(number, 7))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "state")], cwd=ROOT, check=False, timeout=BOUND_S)
    assert any(file.stat().st_size for file in (tmp_path / "state").glob("*-wal"))
    back_up(tmp_path / "state", tmp_path / "copy", NOW)
    assert content(tmp_path / "copy") == {key(number): blob(number, 7) for number in range(50)}


def test_a_backup_never_writes_over_anything(tmp_path):
    fill(tmp_path / "state", 5)
    (tmp_path / "copy").mkdir()
    back_up(tmp_path / "state", tmp_path / "copy", NOW)
    before = content(tmp_path / "copy")
    for there in (tmp_path / "copy", tmp_path / "state", tmp_path / "copy" / REPORT):
        with pytest.raises(BackupFailed, match="is there already"):
            back_up(tmp_path / "state", there, NOW)
    assert content(tmp_path / "copy") == before


def test_two_backups_never_write_one_copy(tmp_path):
    fill(tmp_path / "state", 5)
    part = tmp_path / "copy.part"
    part.mkdir()
    descriptor = os.open(part, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BackupFailed, match="another backup"):
        back_up(tmp_path / "state", tmp_path / "copy", NOW)
    os.close(descriptor)
    back_up(tmp_path / "state", tmp_path / "copy", NOW)


def test_a_folder_that_is_no_store_is_named(tmp_path):
    with pytest.raises(BackupFailed, match="holds no records"):
        back_up(tmp_path, tmp_path / "copy", NOW)
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_finds_no_room_is_not_begun(tmp_path, monkeypatch):
    fill(tmp_path / "state", 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(BackupFailed, match="has room for"):
        back_up(tmp_path / "state", tmp_path / "copy", NOW)
    assert not (tmp_path / "copy").exists()


def test_a_damaged_store_makes_no_backup(tmp_path):
    """What a copy is for has to be found out when it is made."""
    fill(tmp_path / "state", 400)
    file = shard_file(tmp_path / "state", 3)
    with file.open("r+b") as damaged:
        damaged.seek(2 * PAGE_BYTES)
        damaged.write(os.urandom(file.stat().st_size - 3 * PAGE_BYTES))
    with pytest.raises(BackupFailed, match=r"shard-3|malformed"):
        back_up(tmp_path / "state", tmp_path / "copy", NOW)
    assert not (tmp_path / "copy").exists()


def test_a_killed_backup_leaves_no_copy_and_the_next_run_makes_one(tmp_path):
    fill(tmp_path / "state", 4000)
    command = [sys.executable, "-m", "service", "state", "backup"]
    command += ["--from", f"sqlite:///{tmp_path}/state", "--to", str(tmp_path / "copy")]
    part = tmp_path / "copy.part"
    with held("sqlite3.connect 1 copy.part/shard-5.db", command) as process:
        assert shard_file(part, 4).exists()
        stop(process, signal.SIGKILL)
    assert not (tmp_path / "copy").exists()
    assert not (part / SETTINGS).exists(), "what is left can't be taken for a store"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "4,000 records" in done.stdout
    assert not part.exists()
    assert len(content(tmp_path / "copy")) == 4000
