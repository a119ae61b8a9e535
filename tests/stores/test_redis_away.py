"""The Redis store while its server is away, stuck or starting: refusals within a second, and recovery by itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.core.errors import StoreUnavailable
from service.core.ports import Stored
from service.core.types import ClientKey
from service.stores import redis_outage
from service.stores.redis_keys import place_of
from tests.serving import wait_until
from tests.stores.contract import fresh, listed, put, verbs
from tests.stores.redis_servers import (
    RedisServer,
    redis_server,
)
from tests.stores.trouble import RECOVERY_S, answered, kept, soon, timed
from tests.stores.workers import bump, number

KEY = ClientKey("tenant", "sensor", "roof-7")


def test_a_server_that_is_not_there_yet_does_not_keep_the_store_from_opening(opened, tmp_path):
    server = RedisServer(tmp_path)
    assert soon(lambda: timed(lambda: opened(server.url).load(KEY))[0])
    store = opened(server.url)
    assert f"127.0.0.1:{server.port}" in timed(lambda: store.load(KEY))[1]
    server.start()
    try:
        nonce = kept(store, KEY)
        assert answered(lambda: store.load(KEY)) == Stored(nonce, b"record")
    finally:
        server.kill()


@pytest.mark.parametrize("mode", ["cut", "hole"])
def test_while_redis_is_away_verbs_fail_within_a_second_and_then_at_once_and_it_recovers_by_itself(store, proxy, mode):
    nonce = kept(store, KEY)
    each = verbs(store, nonce)

    def outage():
        """How long the first verb took, or all the others together if that is longer."""
        assert answered(lambda: store.load(KEY)) == Stored(nonce, b"record")
        proxy.set_mode(mode)
        first, _ = timed(each[0])
        begun = time.monotonic()
        for verb in each * 3:
            timed(verb)
        then = time.monotonic() - begun
        proxy.set_mode("pass")
        return max(first, then)

    assert soon(outage)
    assert answered(lambda: store.load(KEY)) == Stored(nonce, b"record")
    new = fresh()
    assert answered(lambda: store.save(KEY, nonce, new, b"goes on")) is True


@pytest.mark.parametrize(("mode", "in_doubt"), [("cut", False), ("hole", True)])
def test_a_save_that_was_sent_and_never_answered_is_in_doubt_and_one_not_sent_is_not(store, proxy, mode, in_doubt):
    nonce = kept(store, KEY)
    proxy.set_mode(mode)
    with pytest.raises(StoreUnavailable) as caught:
        store.save(KEY, nonce, fresh(), b"stored?")
    assert caught.value.extra.get("in_doubt", False) is in_doubt


def test_a_save_under_way_when_others_find_the_server_gone_is_in_doubt(store, proxy, monkeypatch):
    """It is not tried again, as the server is known to be away by then; but it was sent."""
    nonce, caught = kept(store, KEY), []
    monkeypatch.setattr(redis_outage, "FIRST_S", 3600.0)  # nobody looks whether it is back
    monkeypatch.setattr(redis_outage, "LONGEST_S", 3600.0)
    outage = store._calls._route.server(place_of(KEY).bucket).outage
    proxy.set_mode("hole")

    def save():
        with pytest.raises(StoreUnavailable) as refused:
            store.save(KEY, nonce, fresh(), b"stored?")
        caught.append(refused.value)

    sender = threading.Thread(target=save)
    sender.start()
    wait_until(lambda: proxy.swallowed > 0, RECOVERY_S, "the save on its way", every_s=0.001)
    outage.failed("gone", trial=True)
    sender.join()
    assert caught[0].detail.startswith("gone")
    assert caught[0].extra == {"in_doubt": True}


def test_threads_that_wait_for_a_black_hole_wait_side_by_side(store, proxy):
    def longest_wait():
        answered(lambda: store.load(KEY))
        proxy.set_mode("hole")
        with ThreadPoolExecutor(8) as pool:
            waits = list(pool.map(lambda _: timed(lambda: store.load(KEY))[0], range(8)))
        proxy.set_mode("pass")
        return max(waits)

    assert soon(longest_wait)


@pytest.mark.usefixtures("patient")
def test_a_connection_that_is_cut_for_a_moment_is_not_noticed(store, proxy):
    assert bump(store, KEY) == 1
    proxy.set_mode("cut")
    back = threading.Timer(0.2, proxy.set_mode, ["pass"])
    back.start()
    try:
        assert bump(store, KEY) == 2
    finally:
        back.join()


@pytest.mark.usefixtures("patient")
def test_idle_connections_that_the_server_closed_cost_nothing(store, proxy):
    nonce = put(store, KEY)
    for _ in range(5):
        proxy.set_mode("pass")  # closes those that are there
        assert store.load(KEY) == Stored(nonce, b"record")


def test_nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_and_reads_its_log(tmp_path, opened):
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        store = opened(server.url)
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(4)]
        acknowledged, in_doubt = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
        stop = threading.Event()

        def count(key):
            while not stop.is_set():
                try:
                    stored = store.load(key)
                    kept = number(stored)
                    assert kept in (acknowledged[key], acknowledged[key] + in_doubt[key])
                    acknowledged[key], in_doubt[key] = kept, 1
                    saved = store.save(key, None if stored is None else stored.nonce, fresh(), b"%d" % (kept + 1))
                except StoreUnavailable:
                    stop.wait(0.01)
                else:
                    assert saved is True
                    acknowledged[key], in_doubt[key] = kept + 1, 0

        with ThreadPoolExecutor(4) as pool:
            counting = [pool.submit(count, key) for key in keys]
            try:
                for _ in range(3):
                    enough = sum(acknowledged.values()) + 40
                    wait_until(lambda enough=enough: sum(acknowledged.values()) > enough, RECOVERY_S, "saves")
                    server.kill()
                    server.start()
            finally:
                stop.set()
            for each in counting:
                each.result()
        for key, made in acknowledged.items():
            assert number(answered(lambda key=key: store.load(key))) in (made, made + in_doubt[key])
        assert sorted(answered(lambda: listed(store, "tenant", "sensor"))) == sorted(key.client for key in keys)


def test_a_server_that_still_loads_its_data_is_away_until_it_has(tmp_path, opened):
    with redis_server(tmp_path) as server:
        store = opened(server.url)
        for n in range(400):
            kept(store, ClientKey("tenant", "sensor", f"client-{n}"))
        server.ask("SAVE")
    slowly = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")  # us for each key: 4 s
    slow = RedisServer(tmp_path, *slowly, port=server.port)
    slow.start(wait=False)
    try:

        def is_loading():
            try:
                return store.load(ClientKey("tenant", "sensor", "client-7")) is None
            except StoreUnavailable as error:
                return "loading" in str(error)

        wait_until(is_loading, RECOVERY_S, "word that the server loads its data")
        slow.ask("CONFIG", "SET", "key-load-delay", "0")
        assert answered(lambda: store.load(ClientKey("tenant", "sensor", "client-7"))).blob == b"record"
    finally:
        slow.kill()
