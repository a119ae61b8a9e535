"""The Redis store over a server that answers, but not as one would like, and what its operator is told."""

import logging
import subprocess
import threading

import pytest

from service.core.ports import Stored
from service.core.types import ClientKey
from service.stores.redis_keys import place_of
from tests.serving import free_port, wait_until
from tests.stores.contract import fresh, listed, put
from tests.stores.redis_servers import (
    redis_server,
)
from tests.stores.trouble import RECOVERY_S, answered, kept, soon, timed

KEY = ClientKey("tenant", "sensor", "roof-7")


@pytest.mark.usefixtures("patient")
def test_a_full_memory_refuses_saves_alone_and_the_store_goes_on_when_there_is_room(server, store, proxy):
    nonce = put(store, KEY)
    other = ClientKey("tenant", "sensor", "other")
    put(store, other)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    scripts = server.ask("INFO", "commandstats")["cmdstat_eval"]["calls"]
    try:
        for _ in range(3):
            assert "memory is full" in timed(lambda: store.save(KEY, nonce, fresh(), b"more"))[1]
        assert server.ask("INFO", "commandstats")["cmdstat_eval"]["calls"] == scripts + 3, "none is tried again"
        assert timed(lambda: put(store, ClientKey("tenant", "sensor", "new")))
        assert store.load(KEY) == Stored(nonce, b"record")
        assert store.delete(other) is True
        assert listed(store, "tenant", "sensor") == ["roof-7"]
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")
    assert store.save(KEY, nonce, fresh(), b"more") is True


@pytest.mark.usefixtures("patient")
def test_a_save_stored_just_before_the_memory_was_full_is_acknowledged_though_its_reply_was_lost(server, store, proxy):
    nonce, new = put(store, KEY), fresh()
    full = threading.Thread(target=lambda: fill_once_lost(server, proxy))
    proxy.lose_reply(to=b"EVAL")
    full.start()
    try:
        assert store.save(KEY, nonce, new, b"stored") is True
    finally:
        full.join()
        server.ask("CONFIG", "SET", "maxmemory", "0")
    assert store.load(KEY) == Stored(new, b"stored")


def fill_once_lost(server, proxy):
    wait_until(lambda: proxy.lost > 0, RECOVERY_S, "a lost reply", every_s=0.001)
    server.ask("CONFIG", "SET", "maxmemory", "1")


def test_a_server_demoted_to_a_replica_takes_no_saves_until_it_is_a_master_again(server, store, opened):
    nonce, new = kept(store, KEY), fresh()
    server.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        assert soon(lambda: timed(lambda: opened(server.url).save(KEY, nonce, fresh(), b"lost?"))[0])
        assert "read only" in timed(lambda: store.save(KEY, nonce, fresh(), b"lost?"))[1]
    finally:
        server.ask("REPLICAOF", "NO", "ONE")
    assert answered(lambda: store.load(KEY)) == Stored(nonce, b"record")
    assert answered(lambda: store.save(KEY, nonce, new, b"goes on")) is True


@pytest.mark.usefixtures("patient")
def test_a_server_that_can_not_save_to_disk_is_named_and_recovers(server, store, tmp_path):
    nonce = put(store, KEY)
    in_the_way = server.folder / "dump.rdb"
    in_the_way.mkdir()
    server.ask("CONFIG", "SET", "save", "3600 1")
    try:
        server.ask("BGSAVE")
        wait_until(lambda: server.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err", 120, "a failed save")
        assert "MISCONF" in timed(lambda: store.save(KEY, nonce, fresh(), b"more"))[1]
        assert store.load(KEY) == Stored(nonce, b"record")
    finally:
        server.ask("CONFIG", "SET", "save", "")
        in_the_way.rmdir()
    assert store.save(KEY, nonce, fresh(), b"more") is True


@pytest.mark.usefixtures("patient")
def test_a_key_of_another_program_in_our_place_is_refused_and_left(server, store):
    server.ask("LPUSH", place_of(KEY).record_key, "not ours")
    assert "WRONGTYPE" in timed(lambda: store.load(KEY))[1]
    assert "WRONGTYPE" in timed(lambda: store.save(KEY, None, fresh(), b"x"))[1]
    assert server.ask("LLEN", place_of(KEY).record_key) == 1


@pytest.mark.usefixtures("patient")
def test_settings_that_lose_records_are_warned_of_once(tmp_path, opened, caplog):
    with redis_server(tmp_path, "--maxmemory-policy", "allkeys-lru", "--appendonly", "yes") as server:
        with caplog.at_level(logging.WARNING, "service.stores"):
            store = opened(server.url)
            for _ in range(3):
                store.load(KEY)
        assert len(caplog.messages) == 2
        assert "allkeys-lru" in caplog.messages[0]
        assert "appendfsync always, not everysec" in caplog.messages[1]
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.ask("CONFIG", "SET", "appendfsync", "always")
        caplog.clear()
        opened(server.url).load(KEY)
        assert caplog.messages == []


def test_a_password_is_used_and_never_shown(tmp_path, opened, caplog):
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        server.ask("ACL", "SETUSER", "recurve", "on", ">a+b/c@d", "~recurve:*", "+@all", "-@dangerous")
        server.ask("ACL", "SETUSER", "default", "off")
        store = opened(f"redis://recurve:a%2Bb%2Fc%40d@127.0.0.1:{server.port}/0")
        kept(store, KEY)  # though INFO and CONFIG are forbidden to it
        wrong_url = f"redis://recurve:hunter2@127.0.0.1:{server.port}"
        assert soon(lambda: timed(lambda: opened(wrong_url).load(KEY))[0])
        wrong = opened(wrong_url)
        _, said = timed(lambda: wrong.load(KEY))
        assert "invalid username-password pair" in said
        assert "hunter2" not in said + repr(wrong) + repr(vars(wrong)) + caplog.text


# -- encryption -----------------------------------------------------------------------------------------------------

CERTIFICATES = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ours -keyout ca.key -out ca.pem
for name in server client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
  openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out $name.pem
done
"""


@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    subprocess.run(["sh", "-euc", CERTIFICATES], cwd=folder, check=True, capture_output=True)
    return folder


def test_an_encrypted_connection_wants_certificates_of_both_sides(tmp_path, certificates, opened):
    port, files = free_port(), {f: str(certificates / f) for f in ("ca.pem", "server.pem", "server.key")}
    tls = ("--tls-port", str(port), "--tls-ca-cert-file", files["ca.pem"])
    own = ("--tls-cert-file", files["server.pem"], "--tls-key-file", files["server.key"])
    with redis_server(tmp_path / "redis", *tls, *own):
        url = f"rediss://127.0.0.1:{port}?ca={certificates}/ca.pem"
        store = opened(f"{url}&cert={certificates}/client.pem&key={certificates}/client.key")
        nonce = kept(store, KEY)
        assert answered(lambda: store.load(KEY)) == Stored(nonce, b"record")
        timed(lambda: opened(url).load(KEY))  # the server asks who it is
        assert "certificate verify failed" in timed(lambda: opened(f"rediss://127.0.0.1:{port}").load(KEY))[1]
