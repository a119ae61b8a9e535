"""A store is chosen by URL, and a URL that names none is refused with what to write instead."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.core.types import ClientKey
from service.stores import open_store
from service.stores.errors import StoreNotOpened
from service.stores.memory import MemoryStore
from service.stores.redis import RedisStore
from service.stores.redis_keys import BUCKETS, place_of, slot_of
from service.stores.redis_url import parse
from service.stores.sqlite import SqliteStore
from service.stores.sqlite_folder import SHARDS, shard_file, shard_of

ROOT = Path(__file__).parents[2]
KEY = ClientKey("tenant", "sensor", "roof-7")


def test_the_scheme_picks_the_driver(opened, tmp_path):
    assert isinstance(opened("memory://"), MemoryStore)
    assert isinstance(opened(f"sqlite:///{tmp_path}/state"), SqliteStore)


def test_three_slashes_are_relative_and_four_absolute(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = opened("sqlite:///var/with%20space")
    absolute = opened(f"sqlite:///{tmp_path}/var/with%20space")
    assert (tmp_path / "var" / "with space" / "store.json").exists()
    monkeypatch.chdir("/")
    assert relative.save(KEY, None, b"12345678", b"blob") is True
    assert absolute.load(KEY).blob == b"blob"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("redis-ish://host", "memory://, sqlite://, redis://"),
        ("", "memory://, sqlite://"),
        ("var/state", "memory://, sqlite://"),
        ("sqlite://[", "is no URL"),
        ("memory://host", "just memory://"),
        ("memory:///folder", "just memory://"),
        ("sqlite://", "sqlite:///relative/folder"),
        ("sqlite:///", "sqlite:///relative/folder"),
        ("sqlite://var/state", "sqlite:///relative/folder"),
        ("sqlite:///x?durability=paper", "durability=process or power"),
        ("sqlite:///x?speed=9", "durability=process or power"),
        ("redis://", "names no server"),
        ("redis://:6379", "names no server"),
        ("redis://host:port", "is no HOST"),
        ("redis://host:66000", "is no HOST"),
        ("redis://a..b", "is no HOST"),
        ("redis://host/state", "redis://"),
        ("redis://host/0#x", "redis://"),
        ("redis://one,two", "redis\\+cluster://"),
        ("redis+cluster://one,,two", "names no server"),
        ("redis+cluster://one,two/3", "no databases"),
        ("redis://host?ca=/etc/hosts", "of a rediss URL"),
        ("rediss://host?password=x", "of a rediss URL"),
        ("rediss://host?ca=/nowhere/ca.pem", "can't be used"),
        ("rediss://host?ca=/etc/hosts", "can't be used"),
        ("rediss://host?key=/etc/hosts", "can't be used"),
    ],
)
def test_a_url_that_names_no_store_is_refused_with_what_to_write(url, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreNotOpened, match=hint):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:port",
        "redis://:hunter2@host/x",
        "redis+cluster://:hunter2@one,two/1",
        "rediss://host?password=hunter2",
        "postgres://user:hunter2@host",
        "redis://user:hunter2@[host",
        "rediss://:hunter2@host?ca=/nowhere",
    ],
)
def test_no_refusal_shows_a_password(url):
    with pytest.raises(StoreNotOpened) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None or "hunter2" not in repr(caught.value.__cause__)


def test_redis_urls_name_servers_a_database_and_a_user(opened):
    for url, servers, options in (
        ("redis://cache", [("cache", 6379)], {}),
        ("redis://[::1]:7000/3", [("::1", 7000)], {"db": 3}),
        ("rediss://:p%40ss@cache:1", [("cache", 1)], {"username": None, "password": "p@ss"}),
        ("redis+cluster://me:pw@a:1,b", [("a", 1), ("b", 6379)], {"username": "me", "password": "pw"}),
        ("rediss+cluster://a/0", [("a", 6379)], {"db": 0}),
    ):
        where = parse(url, urlsplit(url))
        assert list(where.servers) == servers
        assert dict(where.options) == options
        assert where.cluster == ("cluster" in url)
        assert where.encrypted == url.startswith("rediss")
        assert "pw" not in repr(where)
        assert isinstance(opened(url), RedisStore)  # which asks nobody yet


def test_where_a_record_lies_in_redis_never_changes_between_releases():
    assert place_of(KEY) == (231, "recurve:1:{412}:tenant/sensor/roof-7", "recurve:1:{412}", "tenant/sensor/roof-7")
    assert [slot_of(bucket) // 64 for bucket in range(BUCKETS)] == list(range(BUCKETS))
    found = [place_of(ClientKey("tenant", "sensor", f"client-{n}")).bucket for n in range(25_600)]
    assert all(50 < found.count(bucket) < 150 for bucket in range(BUCKETS))


def test_records_outlive_the_store_that_wrote_them(opened, tmp_path):
    url = f"sqlite:///{tmp_path}/state"
    first = open_store(url)
    assert first.save(KEY, None, b"12345678", b"blob") is True
    first.close()
    assert opened(url).load(KEY) == (b"12345678", b"blob")


def test_where_a_key_is_kept_never_changes_between_releases():
    assert [shard_of(f"tenant/sensor/client-{n}") for n in range(8)] == [2, 3, 1, 0, 6, 5, 7, 4]
    found = [shard_of(f"tenant/sensor/client-{n}") for n in range(8000)]
    assert all(900 < found.count(shard) < 1100 for shard in range(SHARDS))


@pytest.mark.parametrize("content", ['{"format": 2}', '{"format": 1, "shards": 4, "hash": "blake2b-64"}', "", "[]"])
def test_a_folder_of_another_layout_is_refused(tmp_path, content):
    url = f"sqlite:///{tmp_path}/state"
    open_store(url).close()
    (tmp_path / "state" / "store.json").write_text(content)
    with pytest.raises(StoreNotOpened, match=r"store\.json"):
        open_store(url)


def test_a_lost_shard_is_an_error_and_not_an_empty_shard(tmp_path):
    url = f"sqlite:///{tmp_path}/state"
    open_store(url).close()
    shard_file(tmp_path / "state", 3).unlink()
    with pytest.raises(StoreNotOpened, match=r"shard-3\.db"):
        open_store(url)


def test_a_shard_that_is_no_database_is_named(tmp_path):
    url = f"sqlite:///{tmp_path}/state"
    open_store(url).close()
    shard_file(tmp_path / "state", 3).write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreNotOpened, match="not a database"):
        open_store(url)


def test_a_folder_whose_making_was_interrupted_is_completed(opened, tmp_path):
    url = f"sqlite:///{tmp_path}/state"
    open_store(url).close()
    (tmp_path / "state" / "store.json").unlink()
    for number in range(3, SHARDS):
        shard_file(tmp_path / "state", number).unlink()
    store = opened(url)
    for n in range(20):
        assert store.save(ClientKey("tenant", "sensor", f"client-{n}"), None, b"12345678", b"") is True
    assert json.loads((tmp_path / "state" / "store.json").read_text())["shards"] == SHARDS


@pytest.mark.parametrize("folder", ["a-file", "a-file/below", "/proc/recurve-state"])
def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path, folder):
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(StoreNotOpened, match="give it a writable folder"):
        open_store(f"sqlite:///{tmp_path / folder}")


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_this_user_may_not_write_is_a_clear_error(begun):
    with tempfile.TemporaryDirectory(prefix="recurve-") as folder:  # not tmp_path: its parents are private
        if begun:
            open_store(f"sqlite:///{folder}").close()
        os.chmod(folder, 0o555)
        try:
            said = subprocess.run(
                [sys.executable, "-m", "tests.stores.workers", f"sqlite:///{folder}", "unprivileged"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
        finally:
            os.chmod(folder, 0o755)
    assert "give it a writable folder" in said
    assert folder in said
