"""What the Redis store does beyond the contract: deletes by nonce, doubtful saves, scans."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.core.errors import StoreUnavailable
from service.core.patience import WouldWait, hurried
from service.core.ports import Save, Stored
from service.core.types import ClientKey
from tests.stores.contract import fresh, put, verbs
from tests.stores.redis_servers import (
    cluster_url,
)
from tests.stores.trouble import answered, kept, soon, timed

KEY = ClientKey("tenant", "sensor", "roof-7")


@pytest.mark.usefixtures("patient")
def test_a_delete_whose_reply_was_lost_is_true_and_one_of_nothing_is_false(store, proxy):
    nonce = put(store, KEY)
    proxy.lose_reply(to=b"EVAL")
    assert store.delete(KEY) is True
    nonce = put(store, KEY)
    proxy.lose_reply(to=b"EVAL")
    assert store.delete(KEY, nonce) is True
    proxy.lose_reply(to=b"GETRANGE")
    assert store.delete(KEY) is False
    assert proxy.lost == 3


@pytest.mark.usefixtures("patient")
def test_a_save_overtaken_by_more_writers_than_are_remembered_is_left_open(store, opened, server, proxy, monkeypatch):
    first, mine = put(store, KEY), fresh()
    other, nonces = opened(server.url), [mine]
    call = store._calls.call

    def overtaken(bucket, *command):
        """Others write as soon as the save is stored, before its sender asks again."""
        reply = call(bucket, *command)
        if "EVAL" in command and mine in command:
            for _ in range(writers):
                nonces.append(fresh())
                assert other.save(KEY, nonces[-2], nonces[-1], b"other") is True
            return reply._replace(value=0, repeated=True)
        return reply

    monkeypatch.setattr(store._calls, "call", overtaken)
    writers = 7
    assert store.save(KEY, first, mine, b"mine") is True
    writers, previous, mine = 8, nonces[-1], fresh()
    nonces = [mine]
    assert "may be stored" in timed(lambda: store.save(KEY, previous, mine, b"mine"))[1]


def test_a_save_that_can_not_be_looked_for_after_its_reply_was_lost_is_left_open(store, server, proxy, monkeypatch):
    first, mine = kept(store, KEY), fresh()
    call = store._calls.call

    def overtaken(bucket, *command):
        if command[0] == "GETRANGE":
            proxy.set_mode("cut")
        reply = call(bucket, *command)
        return reply._replace(value=0, repeated=True) if command[0] == "EVAL" else reply

    monkeypatch.setattr(store._calls, "call", overtaken)
    with pytest.raises(StoreUnavailable) as caught:
        store.save(KEY, first, mine, b"mine")
    assert caught.value.extra == {"in_doubt": True}


@pytest.mark.usefixtures("patient")
def test_deleting_with_a_nonce_spares_what_was_written_since(store):
    old = put(store, KEY)
    new = fresh()
    assert store.save(KEY, old, new, b"since") is True
    assert store.delete(KEY, old) is False
    assert store.load(KEY) == Stored(new, b"since")
    assert store.delete(KEY, new) is True
    assert store.delete(KEY, new) is False


@pytest.mark.usefixtures("patient")
def test_of_threads_that_delete_one_wins(store):
    for _ in range(10):
        put(store, KEY)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda _: store.delete(KEY), range(4))) == 1


@pytest.fixture(params=["one server", "cluster"])
def shared(request, opened):
    if request.param == "cluster":
        return opened(cluster_url(request.getfixturevalue("cluster")))
    return opened(request.getfixturevalue("server").url)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_a_scan_meets_every_record_whole_with_its_nonce(shared, limit):
    keys = [ClientKey(t, m, f"é/{n}") for t in ("t", "~lease") for m in ("a/b", "c") for n in range(8)]
    kept = {key: (put(shared, key, repr(key).encode()), repr(key).encode()) for key in keys}
    found, after = {}, None
    while True:
        scan = shared.scan(after, limit)
        assert len(scan.entries) <= limit
        found.update((entry.key, (entry.nonce, entry.blob)) for entry in scan.entries)
        after = scan.cursor
        if after is None:
            break
        shared.delete(scan.entries[0].key)
    assert found == kept


@pytest.mark.usefixtures("patient")
def test_threads_at_work_while_the_store_is_closed_are_told_so(store):
    put(store, KEY)
    at_work = threading.Semaphore(0)

    def work():
        while True:
            store.save(KEY, store.load(KEY).nonce, fresh(), b"again")
            at_work.release()

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(4)]
        for _ in range(40):
            assert at_work.acquire(timeout=120)
        store.close()
        for each in working:
            with pytest.raises(StoreUnavailable, match="closed"):
                each.result(120)


@pytest.mark.usefixtures("patient")
def test_who_is_in_a_hurry_gives_way_before_anything_is_sent(store, server):
    nonce = put(store, KEY)
    sent = server.ask("INFO", "stats")["total_commands_processed"]
    for verb in verbs(store, nonce):
        with hurried(), pytest.raises(WouldWait):
            verb()
    assert server.ask("INFO", "stats")["total_commands_processed"] == sent + 1  # the first look itself
    assert store.load(KEY) == Stored(nonce, b"record")


@pytest.mark.usefixtures("patient")
def test_what_one_server_holds_is_asked_of_it_together(store, server):
    put(store, KEY)
    keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(200)]
    read = int(server.ask("INFO", "stats")["total_reads_processed"])
    assert all(store.save_many([Save(key, None, fresh(), b"record") for key in keys]))
    assert [stored.blob for stored in store.load_many(keys)] == [b"record"] * 200
    assert int(server.ask("INFO", "stats")["total_reads_processed"]) < read + 40


def test_many_saves_that_were_sent_and_never_answered_are_in_doubt_and_again_are_answered(store, proxy):
    keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(20)]
    saves = [Save(key, None, fresh(), b"record") for key in keys]
    proxy.lose_reply(to=b"EVAL", times=50)
    with pytest.raises(StoreUnavailable) as caught:
        store.save_many(saves)
    assert caught.value.extra["in_doubt"] is True
    proxy.forgive()

    def outage():
        answered(lambda: store.load(KEY))
        proxy.set_mode("hole")
        took, _ = timed(lambda: store.save_many(saves))
        proxy.set_mode("pass")
        return took

    assert soon(outage)
    assert answered(lambda: store.save_many(saves)) == [True] * 20
    assert answered(lambda: store.count("tenant", "sensor")) == 20
