"""What every store keeps to, whatever is behind it. A store's test module adds a fixture and inherits this."""

import random
import secrets
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from service.core.errors import InvalidInput, StoreUnavailable
from service.core.patience import WouldWait, hurried
from service.core.ports import CountsClients, CountsRecords, Entry, Save, SavesMany, Scans, Stored
from service.core.predictor import Predictor
from service.core.requests import PredictRequest
from service.core.types import ClientKey
from tests.fakes import LeakyIntegrator, make_spec, registry_of
from tests.stores.workers import bump, bump_many, number

ROOT = Path(__file__).parents[2]
KEY = ClientKey("tenant", "sensor", "roof-7")
BOUND_S = 300.0

ODD_NAMES = [
    "%",
    "%2F",
    "a/b",
    "/",
    "//",
    "..",
    "a b",
    "a+b",
    "?after=1&limit=2#x",
    "'; DROP TABLE records; --",
    '"\\',
    "{tag}",
    "*",
    "[a]",
    "_",
    "0",
    "é",
    "e\u0301",
    "E\u0301",
    "\u00c9",
    "東京",
    "\U0001f321",
    "x" * 256,
    "x" * 255,
    "X" * 256,
    "東" * 256,
    "Roof-7",
    "roof-7",
    "ROOF-7",
    "roof-7 ",
    "roof%2D7",
    "ａ",
    "a",
]


def fresh():
    return secrets.token_bytes(8)


def put(store, key, blob=b"record"):
    """Saves a record where there is none; its nonce."""
    nonce = fresh()
    assert store.save(key, None, nonce, blob) is True
    return nonce


def pages(store, tenant, model, limit):
    after = None
    while True:
        page = store.list(tenant, model, after, limit)
        assert len(page.clients) <= limit
        yield page.clients
        after = page.cursor
        if after is None:
            return


def slices(store, limit):
    after = None
    while True:
        scan = store.scan(after, limit)
        yield scan.entries
        after = scan.cursor
        if after is None:
            return


def scanned(store, limit=100):
    return [entry for entries in slices(store, limit) for entry in entries]


def verbs(store, nonce):
    """Every verb of a store once, on KEY as it was saved with `nonce`; the first one reads."""
    return [
        lambda: store.load(KEY),
        lambda: store.save(KEY, nonce, fresh(), b""),
        lambda: store.delete(KEY),
        lambda: store.list("tenant", "sensor", None, 10),
        lambda: store.count("tenant", "sensor"),
        lambda: store.scan(None, 10),
        lambda: store.load_many([KEY]),
        lambda: store.save_many([Save(KEY, nonce, fresh(), b"")]),
    ]


def listed(store, tenant, model, limit=3):
    return [client for page in pages(store, tenant, model, limit) for client in page]


class StateStoreContract:
    """Every store. The fixture `store` is an empty one, closed by its fixture."""

    def test_a_client_that_was_never_saved_is_none(self, store):
        assert store.load(KEY) is None

    def test_what_is_saved_is_loaded(self, store):
        nonce = put(store, KEY, b"one")
        assert store.load(KEY) == Stored(nonce, b"one")
        assert store.load(KEY) == Stored(nonce, b"one")

    @pytest.mark.parametrize(
        "blob",
        [b"", b"\x00", bytes(range(256)) * 17, b"\xff" * 3_000_000, b"'\"\\\r\n%s?:1"],
        ids=["empty", "zero", "every byte", "big", "quotes"],
    )
    def test_a_blob_comes_back_to_the_byte(self, store, blob):
        nonce = put(store, KEY, blob)
        loaded = store.load(KEY)
        assert loaded == Stored(nonce, blob)
        assert type(loaded.nonce) is bytes
        assert type(loaded.blob) is bytes
        after = fresh()
        assert store.save(KEY, nonce, after, blob + b"!") is True
        assert store.load(KEY) == Stored(after, blob + b"!")

    @pytest.mark.parametrize("nonce", [b"\x00" * 8, b"\xff" * 8, b"12345678", b"NULL\x00\x00\x00\x00"])
    def test_every_nonce_is_as_good_as_another(self, store, nonce):
        assert store.save(KEY, None, nonce, b"first") is True
        assert store.save(KEY, fresh(), fresh(), b"stale") is False
        assert store.save(KEY, nonce, b"\x01" * 8, b"second") is True
        assert store.load(KEY) == Stored(b"\x01" * 8, b"second")

    def test_odd_names_are_names_like_any_other_and_never_meet(self, store):
        keys = [ClientKey("tenant", "sensor", name) for name in ODD_NAMES]
        keys += [ClientKey("tenant", name, "client") for name in ODD_NAMES]
        keys += [ClientKey(name, "sensor", "client") for name in ODD_NAMES]
        keys += [ClientKey("a/b", "c", "d"), ClientKey("a", "b/c", "d"), ClientKey("a", "b", "c/d")]
        saved = {key: put(store, key, repr(key).encode()) for key in keys}
        assert len(saved) == len(keys)
        for key, nonce in saved.items():
            assert store.load(key) == Stored(nonce, repr(key).encode())
        assert sorted(listed(store, "tenant", "sensor")) == sorted(ODD_NAMES)
        for name in ODD_NAMES:
            assert listed(store, "tenant", name) == ["client"] + (ODD_NAMES if name == "sensor" else [])
            assert listed(store, name, "sensor") == ["client"]
        for key in keys[::2]:
            assert store.delete(key) is True
        for place, key in enumerate(keys):
            assert (store.load(key) is None) == (place % 2 == 0)

    def test_a_record_is_created_only_where_there_is_none(self, store):
        nonce = put(store, KEY, b"first")
        assert store.save(KEY, None, fresh(), b"second") is False
        assert store.load(KEY) == Stored(nonce, b"first")

    def test_a_save_that_expects_a_record_creates_none(self, store):
        assert store.save(KEY, fresh(), fresh(), b"late") is False
        assert store.load(KEY) is None

    def test_a_stale_writer_changes_nothing_and_is_told(self, store):
        first = put(store, KEY, b"first")
        second = fresh()
        assert store.save(KEY, first, second, b"second") is True
        assert store.save(KEY, first, fresh(), b"stale") is False
        assert store.load(KEY) == Stored(second, b"second")

    def test_a_save_repeated_after_a_lost_reply_is_true_and_moves_nothing(self, store):
        first, second, third = fresh(), fresh(), fresh()
        for _ in range(3):
            assert store.save(KEY, None, first, b"first") is True
        assert store.load(KEY) == Stored(first, b"first")
        for _ in range(3):
            assert store.save(KEY, first, second, b"second") is True
        assert store.load(KEY) == Stored(second, b"second")
        assert store.save(KEY, second, third, b"third") is True
        assert store.save(KEY, first, second, b"second") is False
        assert store.save(KEY, None, first, b"first") is False
        assert store.load(KEY) == Stored(third, b"third")

    def test_a_deleted_record_is_gone(self, store):
        put(store, KEY)
        assert store.delete(KEY) is True
        assert store.load(KEY) is None
        assert store.delete(KEY) is False

    def test_a_record_is_deleted_only_as_it_was_read_if_that_is_asked(self, store):
        first = put(store, KEY, b"first")
        assert store.delete(KEY, fresh()) is False
        second = fresh()
        assert store.save(KEY, first, second, b"second") is True
        assert store.delete(KEY, first) is False
        assert store.load(KEY) == Stored(second, b"second")
        assert store.delete(KEY, second) is True
        assert store.load(KEY) is None
        assert store.delete(KEY, second) is False
        assert store.delete(ClientKey("tenant", "sensor", "another"), second) is False

    def test_a_record_deleted_and_recreated_never_matches_an_old_nonce(self, store):
        old = put(store, KEY, b"before")
        assert store.delete(KEY) is True
        assert store.save(KEY, old, fresh(), b"from before") is False
        assert store.load(KEY) is None
        new = put(store, KEY, b"after")
        assert store.save(KEY, old, fresh(), b"from before") is False
        assert store.load(KEY) == Stored(new, b"after")

    def test_tenants_models_and_clients_do_not_touch_each_other(self, store):
        keys = [ClientKey(t, m, c) for t in ("t", "t2") for m in ("m", "m2") for c in ("c", "c2")]
        nonces = {key: put(store, key, repr(key).encode()) for key in keys}
        assert store.save(keys[0], nonces[keys[0]], fresh(), b"moved") is True
        assert store.delete(keys[1]) is True
        for key in keys[2:]:
            assert store.load(key) == Stored(nonces[key], repr(key).encode())
        assert sorted(listed(store, "t", "m")) == ["c"]
        assert sorted(listed(store, "t2", "m")) == ["c", "c2"]

    def test_a_listing_without_clients_is_one_empty_page(self, store):
        put(store, KEY)
        assert store.list("tenant", "finance", None, 10) == ([], None)
        assert store.list("other", "sensor", None, 10) == ([], None)

    @pytest.mark.parametrize("limit", [1, 7, 49, 50, 51, 1000])
    def test_a_listing_in_pages_of_any_size_is_complete(self, store, limit):
        names = {f"client-{n}" for n in range(50)}
        for name in names:
            put(store, ClientKey("tenant", "sensor", name))
        found = listed(store, "tenant", "sensor", limit)
        assert len(found) == 50
        assert set(found) == names

    def test_a_client_present_throughout_is_listed_whatever_else_comes_and_goes(self, store):
        staying = {f"stays-{n}" for n in range(40)}
        going = {f"goes-{n}" for n in range(40)}
        for name in staying | going:
            put(store, ClientKey("tenant", "sensor", name))
        found = []
        for turn, page in enumerate(pages(store, "tenant", "sensor", 5)):
            found += page
            for name in page:  # the client that the cursor stands on goes too
                if name in going:
                    assert store.delete(ClientKey("tenant", "sensor", name)) is True
            for name in sorted(going - set(found))[:2]:
                store.delete(ClientKey("tenant", "sensor", name))
            if turn < 20:
                put(store, ClientKey("tenant", "sensor", f"comes-{turn}"))
            for name in sorted(staying)[turn : turn + 3]:
                key = ClientKey("tenant", "sensor", name)
                assert store.save(key, store.load(key).nonce, fresh(), b"moved" * turn) is True
        assert staying <= set(found)

    def test_a_cursor_outlives_every_client_before_it(self, store):
        for n in range(20):
            put(store, ClientKey("tenant", "sensor", f"client-{n}"))
        first = store.list("tenant", "sensor", None, 10)
        for name in first.clients:
            store.delete(ClientKey("tenant", "sensor", name))
        second = store.list("tenant", "sensor", first.cursor, 10)
        assert len(second.clients) == 10
        assert second.cursor is None
        assert not set(first.clients) & set(second.clients)

    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "roof-7", "%00", "é", "🌡", "A" * 1001, "W10", "bnVsbA", "WyJ6IiwwLCJhIl0", "WyJzIiwtMSwiYSJd"],
    )
    def test_a_cursor_that_was_never_given_is_refused(self, store, cursor):
        with pytest.raises(InvalidInput) as caught:
            store.list("tenant", "sensor", cursor, 10)
        assert caught.value.extra == {"field": "after"}

    def test_a_cursor_is_plain_text_for_an_address(self, store):
        for name in ODD_NAMES:
            put(store, ClientKey("tenant", "sensor", name))
        after = None
        for _ in range(len(ODD_NAMES) - 1):
            after = store.list("tenant", "sensor", after, 1).cursor
            assert all(c.isascii() and (c.isalnum() or c in "-_.~") for c in after)

    def test_a_listing_while_threads_write_is_still_complete(self, store):
        staying = {f"stays-{n}" for n in range(60)}
        for name in staying:
            put(store, ClientKey("tenant", "sensor", name))
        stop = threading.Event()

        def churn(thread):
            turn = 0
            while not stop.is_set():
                key = ClientKey("tenant", "sensor", f"comes-{thread}-{turn % 7}")
                put(store, key)
                store.delete(key)
                turn += 1
            return turn

        with ThreadPoolExecutor(2) as pool:
            churning = [pool.submit(churn, thread) for thread in range(2)]
            try:
                listings = [set(listed(store, "tenant", "sensor", 4)) for _ in range(10)]
            finally:
                stop.set()
            assert all(future.result() > 0 for future in churning)
        assert all(staying <= listing for listing in listings)

    def test_an_empty_store_is_scanned_to_its_end(self, store):
        assert isinstance(store, Scans)
        assert scanned(store) == []

    @pytest.mark.parametrize("limit", [1, 7, 49, 1000])
    def test_a_scan_in_slices_of_any_size_meets_every_record_whole(self, store, limit):
        keys = [ClientKey(t, m, f"client-{n}") for t in ("t", "~t") for m in ("m", "m2") for n in range(20)]
        keys += [ClientKey("a/b", "c%2F", name) for name in ODD_NAMES]
        keys += [ClientKey(name, "sensor", "client") for name in ODD_NAMES]
        saved = {key: put(store, key, repr(key).encode()) for key in keys}
        for key in keys[::3]:
            moved = fresh()
            assert store.save(key, saved[key], moved, b"moved " + repr(key).encode()) is True
            saved[key] = moved
        for key in keys[1::3]:
            assert store.delete(key, saved.pop(key)) is True
        found = scanned(store, limit)
        assert len(found) == len(saved)
        assert set(found) == {Entry(key, nonce, store.load(key).blob) for key, nonce in saved.items()}
        for entry in found[:1]:
            assert type(entry) is Entry
            assert type(entry.key) is ClientKey
            assert (type(entry.nonce), type(entry.blob)) == (bytes, bytes)

    def test_a_record_present_throughout_is_scanned_whatever_else_comes_and_goes(self, store):
        staying = {ClientKey("t", "m", f"stays-{n}") for n in range(60)}
        going = {ClientKey("t", "m", f"goes-{n}") for n in range(60)}
        for key in sorted(staying | going):
            put(store, key)
        found = set()
        for turn, entries in enumerate(slices(store, 3)):
            for key, nonce, _ in entries:
                found.add(key)
                if key in going:  # the record that the cursor stands on goes too
                    assert store.delete(key, nonce) is True
            for key in sorted(going - found)[:1]:
                store.delete(key)
                put(store, key)  # gone and come back: another record, wherever the scan stands
            if turn < 20:
                put(store, ClientKey("t", "m", f"comes-{turn}"))
            for key in sorted(staying)[turn : turn + 3]:
                assert store.save(key, store.load(key).nonce, fresh(), b"moved" * turn) is True
        assert staying <= found

    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "roof-7", "%00", "é", "🌡", "A" * 1001, "W10", "bnVsbA", "WyJ6IiwwLCJhIl0", "WyJzIiwtMSwiYSJd"],
    )
    def test_a_scan_refuses_a_cursor_that_was_never_given(self, store, cursor):
        with pytest.raises(InvalidInput) as caught:
            store.scan(cursor, 10)
        assert caught.value.extra == {"field": "after"}

    def test_the_cursors_of_listings_and_scans_are_not_each_others(self, store):
        for n in range(40):
            put(store, ClientKey("tenant", "sensor", f"client-{n}"))
        listing, scan = store.list("tenant", "sensor", None, 1).cursor, store.scan(None, 1).cursor
        with pytest.raises(InvalidInput):
            store.scan(listing, 1)
        with pytest.raises(InvalidInput):
            store.list("tenant", "sensor", scan, 1)

    def test_a_scan_while_threads_write_still_meets_everything_as_it_was_at_some_moment(self, store):
        staying = {ClientKey("tenant", "sensor", f"stays-{n}") for n in range(60)}
        for key in staying:
            put(store, key, b"0" * 9)
        stop = threading.Event()

        def churn(thread):
            turn = 0
            while not stop.is_set():
                coming = ClientKey("tenant", "sensor", f"comes-{thread}-{turn % 7}")
                put(store, coming, coming.client.encode())
                key = ClientKey("tenant", "sensor", f"stays-{turn % 60}")
                nonce = fresh()
                store.save(key, store.load(key).nonce, nonce, b"%d" % thread + nonce)
                store.delete(coming)
                turn += 1
            return turn

        with ThreadPoolExecutor(2) as pool:
            churning = [pool.submit(churn, thread) for thread in range(2)]
            try:
                scans = [scanned(store, 4) for _ in range(10)]
            finally:
                stop.set()
            assert all(future.result() > 0 for future in churning)
        for scan in scans:
            assert staying <= {entry.key for entry in scan}
            for key, nonce, blob in scan:
                if key not in staying:
                    assert blob == key.client.encode()
                else:
                    assert blob == b"0" * 9 or blob[1:] == nonce

    def test_clients_are_counted_by_model_and_tenant(self, store):
        assert isinstance(store, CountsClients)
        assert store.count("tenant", "sensor") == 0
        for n in range(30):
            put(store, ClientKey("tenant", "sensor", f"client-{n}"))
        put(store, ClientKey("tenant", "sensor2", "client"))
        put(store, ClientKey("tenant2", "sensor", "client"))
        assert store.count("tenant", "sensor") == 30
        assert store.count("tenant", "sensor2") == 1
        store.delete(ClientKey("tenant", "sensor", "client-3"))
        assert store.count("tenant", "sensor") == 29
        assert store.count("other", "sensor") == 0

    def test_all_records_are_counted_whosever_they_are(self, store):
        assert isinstance(store, CountsRecords)
        assert store.records() == 0
        for n in range(20):
            put(store, ClientKey(f"~tenant-{n}", f"model-{n}", "\u6771"))
        put(store, KEY)
        assert store.delete(KEY)
        assert store.records() == 20

    def test_many_are_loaded_in_the_order_in_which_they_are_asked_for(self, store):
        assert isinstance(store, SavesMany)
        assert store.load_many([]) == []
        keys = [ClientKey("tenant", name, "client") for name in ODD_NAMES]
        keys += [ClientKey("tenant", "many", f"client-{n}") for n in range(1100)]
        saved = {key: Stored(put(store, key, repr(key).encode()), repr(key).encode()) for key in keys[:60]}
        random.Random(3).shuffle(keys)
        assert store.load_many([*keys, *keys[:3]]) == [saved.get(key) for key in [*keys, *keys[:3]]]

    def test_of_many_saves_each_is_decided_on_its_own(self, store):
        keys = [ClientKey("tenant", "many", name) for name in ("new", "moved", "again", "stale", "there", "missing")]
        new, moved, again, stale, there, missing = keys
        old = {key: put(store, key, b"before") for key in (moved, again, stale, there)}
        nonces = {key: fresh() for key in keys}
        saves = [
            Save(stale, fresh(), nonces[stale], b"x"),
            Save(new, None, nonces[new], b""),
            Save(missing, fresh(), nonces[missing], b"x"),
            Save(moved, old[moved], nonces[moved], b"after"),
            Save(there, None, nonces[there], b"x"),
            Save(again, fresh(), old[again], b"before"),
        ]
        kept = {
            new: Stored(nonces[new], b""),
            moved: Stored(nonces[moved], b"after"),
            again: Stored(old[again], b"before"),
            stale: Stored(old[stale], b"before"),
            there: Stored(old[there], b"before"),
        }
        for _ in range(3):  # the second time as after a lost reply
            assert store.save_many(saves) == [False, True, False, True, False, True]
            assert store.load_many(keys) == [kept.get(key) for key in keys]
            assert [store.load(key) for key in keys] == [kept.get(key) for key in keys]
        assert store.save_many([]) == []
        assert sorted(listed(store, "tenant", "many")) == ["again", "moved", "new", "stale", "there"]
        assert store.count("tenant", "many") == 5

    def test_many_saves_are_as_whole_as_one(self, store):
        keys = [ClientKey("tenant", "many", f"{name}-{n}") for name in ODD_NAMES for n in range(9)]
        saves = [Save(key, None, fresh(), repr(key).encode() * 50) for key in keys]
        assert store.save_many(saves) == [True] * len(keys)
        assert set(scanned(store, 50)) == {Entry(save.key, save.new, save.blob) for save in saves}
        assert len(listed(store, "tenant", "many", 50)) == len(keys)
        for stored in store.load_many(keys[:2]):
            assert (type(stored), type(stored.nonce), type(stored.blob)) == (Stored, bytes, bytes)

    def test_many_big_records_are_saved_and_loaded_as_any(self, store):
        keys = [ClientKey("tenant", "big", f"client-{n}") for n in range(16)]
        saves = [Save(key, None, fresh(), bytes([n]) * 700_000) for n, key in enumerate(keys)]
        assert store.save_many(saves) == [True] * 16
        assert store.load_many(keys) == [save[2:] for save in saves]

    def test_two_saves_of_one_key_are_refused_together_and_nothing_is_stored(self, store):
        other = ClientKey("tenant", "sensor", "other")
        with pytest.raises(ValueError, match="same key"):
            store.save_many([Save(key, None, fresh(), b"") for key in (KEY, other, KEY)])
        assert store.load_many([KEY, other]) == [None, None]

    def test_threads_that_count_many_at_once_lose_no_count(self, store):
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(12)]
        with ThreadPoolExecutor(4) as pool:
            won = sum(pool.map(lambda n: sum(bump_many(store, keys[n : n + 9]) for _ in range(15)), range(4)))
        assert sum(map(number, store.load_many(keys))) == won > 0

    def test_of_many_threads_that_create_one_wins(self, store):
        for turn in range(10):
            key = ClientKey("tenant", "sensor", f"client-{turn}")
            start = threading.Barrier(8)

            def create(n, key=key, start=start):
                nonce = fresh()
                start.wait(60)
                return nonce if store.save(key, None, nonce, b"%d" % n) else None

            with ThreadPoolExecutor(8) as pool:
                winners = [nonce for nonce in pool.map(create, range(8)) if nonce is not None]
            assert len(winners) == 1
            assert store.load(key).nonce == winners[0]

    def test_threads_that_count_by_compare_and_set_lose_no_count(self, store):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: [bump(store, KEY) for _ in range(50)], range(8)))
        assert number(store.load(KEY)) == 400

    def test_of_a_writer_and_a_deleter_of_what_both_read_one_wins(self, store):
        for turn in range(30):
            key = ClientKey("tenant", "sensor", f"client-{turn}")
            old, start = put(store, key, b"old"), threading.Barrier(8)

            def race(n, key=key, old=old, start=start):
                start.wait(60)
                return store.delete(key, old) if n % 2 else store.save(key, old, fresh(), b"%d" % n)

            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(race, range(8)))
            assert won.count(True) == 1
            stored = store.load(key)
            winner = won.index(True)
            assert stored is None if winner % 2 else stored.blob == b"%d" % winner

    def test_a_reader_never_sees_half_of_a_write(self, store):
        stop = threading.Event()
        put(store, KEY, b"0" * 20_000)

        def write(digit):
            while not stop.is_set():
                nonce = bytes([digit]) * 8
                store.save(KEY, store.load(KEY).nonce, nonce, bytes([digit]) * 20_000)

        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(write, digit) for digit in (1, 2)]
            try:
                for _ in range(500):
                    assert len(set(store.load(KEY).blob)) == 1
            finally:
                stop.set()
            for writer in writers:
                writer.result()
        last = store.load(KEY)
        assert last.blob[:8] == last.nonce

    def test_a_closed_store_refuses_every_verb_and_closes_again(self, store):
        nonce = put(store, KEY)
        store.close()
        store.close()
        unlike = [lambda: store.save(KEY, None, fresh(), b""), lambda: store.delete(KEY, nonce)]
        for verb in verbs(store, nonce) + unlike:
            with pytest.raises(StoreUnavailable, match="closed"):
                verb()

    def test_any_sequence_of_verbs_agrees_with_a_dict(self, store):
        run_state_machine_as_test(
            lambda: Verbs(store),
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


class Verbs(RuleBasedStateMachine):
    """The verbs against a dict. Each example has a tenant of its own, so one store serves them all."""

    nonces = Bundle("nonces")

    def __init__(self, store):
        super().__init__()
        self.store = store
        self.tenant = secrets.token_hex(8)
        self.model = {}

    def key(self, model, client):
        return ClientKey(self.tenant, model, client)

    models = st.sampled_from(["m", "m/", "M"])
    clients = st.sampled_from(["a", "A", "a/b", "a%2Fb", "é", "e\u0301"])
    blobs = st.binary(max_size=40)

    @rule(target=nonces, model=models, client=clients, blob=blobs)
    def create(self, model, client, blob):
        nonce = fresh()
        created = self.store.save(self.key(model, client), None, nonce, blob)
        assert created == ((model, client) not in self.model)
        if created:
            self.model[model, client] = Stored(nonce, blob)
        return nonce

    @rule(target=nonces, model=models, client=clients, old=nonces, blob=blobs)
    def write_on_what_some_nonce_named(self, model, client, old, blob):
        new = fresh()
        stored = self.model.get((model, client))
        saved = self.store.save(self.key(model, client), old, new, blob)
        assert saved == (stored is not None and stored.nonce == old)
        if saved:
            self.model[model, client] = Stored(new, blob)
        return new

    @rule(target=nonces, model=models, client=clients, blob=blobs)
    def write_on_what_is_there_and_again_after_a_lost_reply(self, model, client, blob):
        new = fresh()
        stored = self.model.get((model, client))
        old = None if stored is None else stored.nonce
        assert self.store.save(self.key(model, client), old, new, blob) is True
        assert self.store.save(self.key(model, client), old, new, blob) is True
        self.model[model, client] = Stored(new, blob)
        return new

    @rule(
        wanted=st.lists(
            st.tuples(models, clients, st.sampled_from(["none", "there", "stale", "again"]), blobs),
            unique_by=lambda one: one[:2],
        )
    )
    def save_many(self, wanted):
        saves, answers, after = [], [], dict(self.model)
        for model, client, old, blob in wanted:
            stored, new = self.model.get((model, client)), fresh()
            if old == "again" and stored is not None:
                saves.append(Save(self.key(model, client), None, *stored))
                answers.append(True)
                continue
            nonce = None if old == "none" else fresh() if old == "stale" or stored is None else stored.nonce
            saves.append(Save(self.key(model, client), nonce, new, blob))
            answers.append(nonce == (None if stored is None else stored.nonce))
            if answers[-1]:
                after[model, client] = Stored(new, blob)
        assert self.store.save_many(saves) == answers
        self.model = after

    @rule(names=st.lists(st.tuples(models, clients)))
    def load_many(self, names):
        assert self.store.load_many([self.key(*name) for name in names]) == [self.model.get(name) for name in names]

    @rule(model=models, client=clients)
    def delete(self, model, client):
        there = self.model.pop((model, client), None) is not None
        assert self.store.delete(self.key(model, client)) == there

    @rule(model=models, client=clients, old=nonces)
    def delete_what_some_nonce_named(self, model, client, old):
        stored = self.model.get((model, client))
        there = stored is not None and stored.nonce == old
        assert self.store.delete(self.key(model, client), old) == there
        if there:
            del self.model[model, client]

    @rule(limit=st.sampled_from([3, 50, 1000]))
    def scan(self, limit):
        found = [entry for entry in scanned(self.store, limit) if entry.key.tenant == self.tenant]
        assert sorted(found) == sorted(Entry(self.key(*name), *stored) for name, stored in self.model.items())

    @rule(model=models, limit=st.integers(1, 7))
    def list(self, model, limit):
        found = listed(self.store, self.tenant, model, limit)
        assert sorted(found) == sorted(client for name, client in self.model if name == model)

    @rule(model=models)
    def count(self, model):
        assert self.store.count(self.tenant, model) == sum(name == model for name, _ in self.model)

    @invariant()
    def every_record_is_as_the_dict_has_it(self):
        for (model, client), stored in self.model.items():
            assert self.store.load(self.key(model, client)) == stored


class SharedStoreContract(StateStoreContract):
    """A store that processes share. The fixture `url` names it; `store` is one opening of it."""

    @pytest.fixture
    def worker(self, begin, url):
        def worker(*arguments, **pipes):
            command = [sys.executable, "-m", "tests.stores.workers", url, *map(str, arguments)]
            return begin(command, stdout=subprocess.PIPE, text=True, **pipes)

        return worker

    def test_of_eight_processes_that_save_on_what_they_all_read_one_wins(self, store, worker):
        workers, old = [worker("race", stdin=subprocess.PIPE) for _ in range(8)], b""
        try:
            for turn in range(40):  # the first creates the record
                for each in workers:
                    each.stdin.write(f"{old.hex()}\n")
                    each.stdin.flush()
                told = [each.stdout.readline().split() for each in workers]
                winners = [bytes.fromhex(nonce) for won, nonce in told if won == "1"]
                assert len(winners) == 1, (turn, told)
                assert store.load(KEY) == Stored(winners[0], winners[0])
                old = winners[0]
        finally:
            for each in workers:
                each.communicate(timeout=60)

    def test_of_many_processes_that_count_one_wins_each_time(self, store, worker):
        put(store, KEY, b"0")
        counting = [worker("count", 200) for _ in range(8)]
        for each in counting:
            assert each.communicate(timeout=BOUND_S)[0].split() == ["200"]
            assert each.returncode == 0
        assert number(store.load(KEY)) == 1600

    def test_of_many_processes_that_count_many_at_once_one_wins_each_time(self, store, worker):
        counting = [worker("count_many", 60) for _ in range(4)]
        won = [int(each.communicate(timeout=BOUND_S)[0]) for each in counting]
        assert all(won)
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(30)]
        assert sum(map(number, store.load_many(keys))) == sum(won)

    def test_who_is_in_a_hurry_is_sent_away_from_many_before_anything_is_stored(self, store):
        nonce = put(store, KEY)
        other = ClientKey("tenant", "sensor", "other")
        with hurried(), pytest.raises(WouldWait):
            store.save_many([Save(KEY, nonce, fresh(), b""), Save(other, None, fresh(), b"")])
        with hurried(), pytest.raises(WouldWait):
            store.load_many([KEY])
        assert store.load_many([KEY, other]) == [Stored(nonce, b"record"), None]

    def test_of_many_processes_that_delete_what_they_read_one_wins_each_time(self, store, worker):
        for n in range(100):
            put(store, ClientKey("tenant", "sensor", f"client-{n}"))
        burying = [worker("bury", 100) for _ in range(4)]
        buried = [int(each.communicate(timeout=BOUND_S)[0]) for each in burying]
        assert sum(buried) + len(listed(store, "tenant", "sensor")) == 100
        kept = [store.load(ClientKey("tenant", "sensor", f"client-{n}")) for n in range(100)]
        assert sum(stored is None for stored in kept) == sum(buried)
        assert all(stored is None or stored.blob == b"back" for stored in kept)

    def test_a_write_is_seen_by_every_other_opening_at_once(self, store, worker):
        counting = worker("echo")
        for _ in range(50):
            line = counting.stdout.readline().split()
            assert store.load(KEY).blob.decode() == line[0]
            assert bump(store, ClientKey("tenant", "sensor", "answer")) == int(line[0])

    @pytest.mark.parametrize("acknowledged", [1, 30, 300])
    def test_a_writer_killed_in_its_loop_loses_nothing_it_acknowledged(self, store, worker, acknowledged):
        last = 0
        with worker("write") as writing:
            for line in writing.stdout:
                last = int(line)
                if last == acknowledged:
                    writing.send_signal(signal.SIGKILL)
        assert writing.returncode == -signal.SIGKILL
        assert last >= acknowledged
        for n in range(20):
            latest = max((k for k in range(1, last + 1) if k % 20 == n), default=0)
            kept = number(store.load(ClientKey("tenant", "sensor", f"client-{n}")))
            assert kept in (latest, latest + 20) or (latest == 0 and kept == n)
        assert bump(store, KEY) == 1

    def test_a_store_opened_before_a_fork_works_in_both_processes(self, worker):
        forking = worker("fork")
        assert forking.communicate(timeout=BOUND_S)[0].split() == ["1601"]
        assert forking.returncode == 0


class LostReplyContract:
    """A store that loses replies after what was asked for has happened, as a network does, or a disk that errs.

    The fixture `store` is such a store, empty; `lose()` makes the reply to its next save be lost.
    """

    def test_a_save_whose_reply_is_lost_is_acknowledged(self, store, lose):
        nonce = None
        for _ in range(10):
            new = fresh()
            lose()
            assert store.save(KEY, nonce, new, b"record " + new) is True
            assert store.load(KEY) == Stored(new, b"record " + new)
            nonce = new

    def test_counts_are_right_though_replies_are_lost(self, store, lose):
        for turn in range(1, 41):
            if turn % 2:
                lose()
            assert bump(store, KEY) == turn

    def test_many_saves_whose_reply_is_lost_are_stored_once_and_acknowledged(self, store, lose):
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(40)]
        before, nonces = dict.fromkeys(keys), dict.fromkeys(keys)
        for turn in range(10):
            stale = keys[turn::7] if turn else []
            saves = [Save(key, (before if key in stale else nonces)[key], fresh(), b"%d" % turn) for key in keys]
            lose()
            assert store.save_many(saves) == [key not in stale for key in keys]
            for save in saves:
                if save.key not in stale:
                    before[save.key], nonces[save.key] = nonces[save.key], save.new
            assert [stored.nonce for stored in store.load_many(keys)] == list(nonces.values())

    def test_many_counts_are_right_though_replies_are_lost_and_others_count(self, store, lose):
        seed = secrets.randbits(32)
        print("seed", seed)
        chance = random.Random(seed)
        losing = [[chance.random() < 0.3 for _ in range(12)] for _ in range(4)]
        keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(10)]
        for key in keys:
            put(store, key, b"0,0,0,0")

        def counts(stored):
            return list(map(int, stored.blob.split(b",")))

        def add(thread):
            """Each thread has a place of its own in every record, and adds until each is stored."""
            for done, loses in enumerate(losing[thread]):
                if loses:
                    lose()
                left = keys
                while left:
                    saves = []
                    for key, stored in zip(left, store.load_many(left), strict=True):
                        found = counts(stored)
                        assert found[thread] == done
                        found[thread] += 1
                        saves.append(Save(key, stored.nonce, fresh(), ",".join(map(str, found)).encode()))
                    try:
                        answers = store.save_many(saves)
                    except StoreUnavailable:  # which leaves it open
                        answers = [counts(stored)[thread] > done for stored in store.load_many(left)]
                    left = [key for key, saved in zip(left, answers, strict=True) if not saved]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(4)))
        assert [counts(stored) for stored in store.load_many(keys)] == [[12] * 4] * 10

    def test_no_step_counts_twice_though_replies_are_lost(self, store, lose):
        predictor = Predictor(registry_of(make_spec(), LeakyIntegrator()), store)
        key, state = ClientKey("tenant", "toy", "roof-7"), 0.0
        for step in range(1, 31):
            if step % 3:
                lose()
            answer = predictor.predict(key, PredictRequest(np.array([[step]], np.float32)))  # it has no number
            state = 0.5 * state + 0.5 * step
            assert answer.step == step
            assert answer.replayed is False
            assert answer.y[0, 0, 0] == pytest.approx(state, rel=1e-6)

    def test_false_means_that_nothing_changed_though_replies_are_lost_and_others_write(self, store, lose):
        seed = secrets.randbits(32)
        print("seed", seed)
        chance = random.Random(seed)
        losing = [[chance.random() < 0.3 for _ in range(30)] for _ in range(4)]
        put(store, KEY, b"0,0,0,0")

        def counts():
            stored = store.load(KEY)
            return stored.nonce, list(map(int, stored.blob.split(b",")))

        def add(thread):
            for done, loses in enumerate(losing[thread]):
                if loses:
                    lose()
                saved = False
                while not saved:
                    old, found = counts()
                    assert found[thread] == done
                    found[thread] += 1
                    try:
                        saved = store.save(KEY, old, fresh(), ",".join(map(str, found)).encode())
                    except StoreUnavailable:  # which leaves it open
                        saved = counts()[1][thread] > done

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(4)))
        assert counts()[1] == [30] * 4
