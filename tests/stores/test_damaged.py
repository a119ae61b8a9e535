"""Damage below the record, in what stores keep beside it: named or refused, never passed on as a state."""

from contextlib import closing

import pytest

from service.core.errors import StoreUnavailable
from service.core.predictor import Predictor
from service.core.types import ClientKey
from service.moving.transfer import slices
from service.stores import open_store
from service.stores.errors import StoreNotOpened
from service.stores.redis_keys import NONCES, place_of
from service.stores.sqlite_backup import BackupFailed, back_up
from service.stores.sqlite_folder import shard_file, shard_of
from service.stores.sqlite_shard import Shard
from tests.desk import request
from tests.fakes import LeakyIntegrator, make_spec, registry_of

KEY = ClientKey("tenant", "toy", "roof-7")


def follow(store, steps=4):
    """Steps the client on: what each answer said of its state and the step, or that the store refused."""
    predictor = Predictor(registry_of(make_spec(), LeakyIntegrator()), store)
    told = []
    for _ in range(steps):
        try:
            answer = predictor.predict(KEY, request(7.0))
        except StoreUnavailable:
            told.append("refused")
        else:
            told.append((answer.state.status, answer.state.reason, answer.step))
    return told


RESTARTED = [("restarted", "corrupt", 1), *(("carried", None, step) for step in (2, 3, 4))]
CARRIED = [("carried", None, step) for step in (4, 5, 6, 7)]


def test_a_value_cut_in_redis_restarts_the_client_once_and_what_follows_is_kept(server, opened):
    store = opened(server.url)
    place = place_of(KEY)
    for size in range(NONCES + 20):
        store.delete(KEY)
        server.ask("DEL", place.record_key, place.index_key)
        follow(store, 3)
        whole = server.ask("GET", place.record_key)
        server.ask("SET", place.record_key, whole[:size])
        assert follow(store) == RESTARTED, size


@pytest.fixture
def kept(tmp_path):
    """A sqlite store in which the client has three steps, closed; the file that holds it, and what is in that."""
    url = f"sqlite:///{tmp_path}/state"
    with closing(open_store(url)) as store:
        follow(store, 3)
        nonce = store.load(KEY).nonce
    file = shard_file(tmp_path / "state", shard_of(KEY.path()))
    return url, file, file.read_bytes(), nonce


def flipped(whole, places):
    """`whole` with each bit of some bytes flipped once."""
    for at in places:
        for bit in range(8):
            yield at, bit, whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]


def test_any_bit_flipped_in_a_sqlite_row_before_the_record_is_corrupt_or_refused(kept):
    """The row's sizes and types, its copy of the key, its nonce: a type may become a text's, a number's, nothing's."""
    url, file, whole, nonce = kept
    path = KEY.path().encode()
    at = whole.index(path + nonce)  # the index has the key as well, without a nonce behind it
    seen = set()
    for place, bit, damaged in flipped(whole, range(at - 8, at + len(path) + len(nonce))):
        file.write_bytes(damaged)
        try:
            with closing(open_store(url)) as store:
                told = follow(store)
        except StoreNotOpened:
            told = ["refused"] * 4
        assert told in (RESTARTED, CARRIED, ["refused"] * 4), (place - at, bit)
        seen.add(told[0])
    assert seen == {RESTARTED[0], CARRIED[0], "refused"}


def test_any_bit_flipped_in_a_sqlite_schema_is_refused_or_harmless(kept):
    _, file, whole, _ = kept
    first, last = whole.index(b"tablerecords"), whole.index(b"indexsqlite_autoindex")
    places = [*range(first - 8, first + 110), *range(last - 8, last + 45)]
    refused = 0
    for _, _, damaged in flipped(whole, places):
        file.write_bytes(damaged)
        with closing(Shard(file, "NORMAL")) as shard:
            try:
                assert shard.load(KEY.path()) is not None
            except StoreUnavailable:
                refused += 1
    assert refused > 100


def test_a_store_whose_schema_does_not_read_makes_no_backup(kept, tmp_path):
    _, file, whole, _ = kept
    file.write_bytes(whole.replace(b"CREATE TABLE", b"CREATE T\xc1BLE"))
    with pytest.raises(BackupFailed, match="can't be copied"):
        back_up(file.parent, tmp_path / "copy", "now")
    assert not (tmp_path / "copy").exists()


def test_a_name_that_does_not_read_stops_no_walk_through_the_store(kept):
    """One row is lost to its client; the others are still met, swept and moved."""
    url, file, whole, nonce = kept
    path = KEY.path().encode()
    at = whole.index(path + nonce)
    with closing(open_store(url)) as store:
        others = [KEY._replace(client=f"other-{number}") for number in range(40)]
        for other in others:
            assert store.save(other, None, b"12345678", b"record")
    whole = file.read_bytes()
    at = whole.index(path + nonce)
    for place, bit, damaged in flipped(whole, range(at, at + len(path))):
        file.write_bytes(damaged)
        with closing(open_store(url)) as store:
            met = [entry.key for entries, _ in slices(store, limit=7) for entry in entries]
        assert set(others) <= set(met), (place - at, bit)
