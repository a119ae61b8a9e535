"""The Redis store over a Cluster that changes: servers fail, replicas take over, slots move."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis.exceptions import TryAgainError

from service.core.errors import StoreUnavailable
from service.core.ports import Save, Stored
from service.core.types import ClientKey
from service.stores import redis_calls
from service.stores.redis_keys import place_of, slot_of
from tests.serving import wait_until
from tests.stores.contract import fresh, listed, put
from tests.stores.redis_servers import (
    cluster_url,
    is_whole,
    redis_cluster,
)
from tests.stores.trouble import RECOVERY_S, answered, kept, soon, timed

KEY = ClientKey("tenant", "sensor", "roof-7")


def test_a_cluster_without_one_of_its_servers_fails_within_a_second_and_recovers(tmp_path, opened):
    with redis_cluster(tmp_path) as servers:
        store = opened(cluster_url(servers[1:]))
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(60)]
        for key in keys:
            kept(store, key)
        assert all(server.ask("DBSIZE") > 20 for server in servers)
        lost = held_by(servers[0].address, store, keys)[0]
        servers[0].kill()
        assert soon(lambda: timed(lambda: store.load(lost))[0])
        assert soon(lambda: timed(lambda: store.count("tenant", "sensor"))[0])
        servers[0].start()
        wait_until(lambda: all(is_whole(server) for server in servers), RECOVERY_S, "the Cluster's agreement")
        answered(lambda: [bump_any(store, key) for key in keys])


def held_by(address, store, keys):
    """Those of `keys` that the server at `address` holds, as far as the store knows."""
    return [key for key in keys if store._calls._route.server(place_of(key).bucket).address == address]


def bump_any(store, key):
    stored = store.load(key)
    assert store.save(key, None if stored is None else stored.nonce, secrets.token_bytes(8), b"again") is True


@pytest.mark.usefixtures("patient")
def test_a_replica_that_takes_over_is_found(tmp_path, opened):
    with redis_cluster(tmp_path, replicas=1) as servers:
        store = opened(cluster_url(servers))
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(60)]
        nonces = {key: put(store, key, b"kept") for key in keys}
        for master in servers[:3]:  # every connection's writes have reached the replica
            master.ask("WAIT", 1 if master is servers[0] else 0, 5000)
        wait_until(lambda: servers[3].ask("DBSIZE") == servers[0].ask("DBSIZE"), RECOVERY_S, "replication")
        servers[0].kill()
        servers[3].ask("CLUSTER", "FAILOVER", "TAKEOVER")  # as it would by itself, some seconds later
        assert {key: store.load(key).nonce for key in keys} == nonces
        for key in keys:
            assert store.save(key, nonces[key], fresh(), b"goes on") is True
        assert len(listed(store, "tenant", "sensor", 7)) == 60


@pytest.mark.usefixtures("patient")
def test_a_slot_that_moves_is_followed_record_by_record(cluster, opened, monkeypatch):
    store = opened(cluster_url(cluster))
    place = place_of(KEY)
    slot = slot_of(place.bucket)
    mates = [key for key in (ClientKey("tenant", "sensor", f"c-{n}") for n in range(5000))
             if place_of(key).bucket == place.bucket][:6]  # fmt: skip
    assert len(mates) == 6
    nonces = {key: put(store, key, b"before") for key in mates}
    ids = {server.ask("CLUSTER", "MYID"): server for server in cluster}
    [source] = [server for server in cluster if server.ask("CLUSTER", "COUNTKEYSINSLOT", slot)]
    target = next(server for server in cluster if server is not source)
    names = {server: name.decode() for name, server in ids.items()}
    try:
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        for key in mates[:3]:  # the index stays behind: what needs both has to wait
            source.ask("MIGRATE", *target.address, place_of(key).record_key, 0, 5000)
        for key in mates:
            assert store.load(key) == Stored(nonces[key], b"before")
            new = fresh()
            assert store.save(key, nonces[key], new, b"meanwhile") is True
            nonces[key] = new
        saves = [Save(key, nonces[key], fresh(), b"meanwhile") for key in mates]
        assert store.save_many([*saves, Save(KEY, fresh(), fresh(), b"stale")]) == [True] * 6 + [False]
        nonces = {save.key: save.new for save in saves}
        assert store.load_many(mates) == [Stored(nonces[key], b"meanwhile") for key in mates]
        with monkeypatch.context() as as_usual:
            as_usual.setattr(redis_calls, "TRY_S", 0.6)
            with pytest.raises(StoreUnavailable) as caught:
                store.delete(mates[0])
        assert isinstance(caught.value.__cause__, TryAgainError)
        for key in mates[3:]:
            source.ask("MIGRATE", *target.address, place_of(key).record_key, 0, 5000)
        source.ask("MIGRATE", *target.address, place.index_key, 0, 5000)
        assert store.load(mates[5]) == Stored(nonces[mates[5]], b"meanwhile")
    finally:
        for server in (target, source, *cluster):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    assert sorted(listed(store, "tenant", "sensor")) == sorted(key.client for key in mates)
    assert store.delete(mates[0]) is True
    put(store, mates[0])
    fresh_one = opened(cluster_url(cluster))
    assert sorted(listed(fresh_one, "tenant", "sensor")) == sorted(key.client for key in mates)


@pytest.mark.parametrize("mode", ["cut", "hole"])
def test_a_server_of_a_cluster_that_does_not_answer_holds_up_its_own_clients_alone(cluster, proxies, opened, mode):
    store = opened(cluster_url(cluster))
    keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(60)]
    nonces = {key: kept(store, key) for key in keys}
    stuck, proxy = next(iter(proxies.items()))
    own = held_by(stuck, store, keys)
    others = [key for key in keys if key not in own]
    assert own
    assert others

    def outage():
        """How long its own clients waited at first, or all of them together then if that is longer."""
        answered(lambda: [store.load(key) for key in own])
        proxy.set_mode(mode)
        with ThreadPoolExecutor(8) as pool:
            waits = list(pool.map(lambda key: timed(lambda: store.load(key))[0], own[:8]))
        begun = time.monotonic()
        for key in others:
            old, nonces[key] = nonces[key], fresh()
            assert answered(lambda key=key, old=old: store.save(key, old, nonces[key], b"goes on")) is True
        for key in own[:8]:
            timed(lambda key=key: store.load(key))
        then = time.monotonic() - begun
        proxy.set_mode("pass")
        return max(*waits, then)

    assert soon(outage)
    answered(lambda: [store.load(key) for key in own])


def test_every_key_of_a_bucket_is_in_the_slot_that_the_servers_find_for_it(cluster):
    for n in range(50):
        place = place_of(ClientKey("tenant", "{sensor}", f"c-{{{n}}}"))
        slots = {cluster[0].ask("CLUSTER", "KEYSLOT", key) for key in (place.record_key, place.index_key)}
        assert slots == {slot_of(place.bucket)}


def test_a_cluster_url_of_a_server_alone_says_so(server, opened):
    said = timed(lambda: opened(f"redis+cluster://127.0.0.1:{server.port}").load(KEY))[1]
    assert "cluster support disabled" in said


def test_one_server_of_a_cluster_named_alone_says_which_url_to_write(cluster, opened):
    store = opened(f"redis://127.0.0.1:{cluster[0].port}")
    heard = [timed(lambda key=key: store.load(key))[1] for key in foreign_to(store)]
    assert any("redis+cluster://" in said for said in heard)


def foreign_to(store):
    """Two keys that one server of three does not hold, if it holds the first slots."""
    keys = (ClientKey("tenant", "sensor", f"c-{n}") for n in range(1000))
    return [key for key in keys if place_of(key).bucket > 200][:2]
