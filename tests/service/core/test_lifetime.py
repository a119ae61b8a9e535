"""Clients that expire: buried with a tombstone, remembered by it, never buried while they are heard of."""

import numpy as np
import pytest

from service.core import quarantine, tombstones
from service.core.errors import AtCapacity, ClientNotFound, OrderConflict, StoreUnavailable
from service.core.lifetime import MONTH_S, WEEK_S
from service.core.predictor import Limits
from service.core.record import decode
from service.core.records import Records
from service.core.registry import ServedModel
from service.core.sweep import Sweep, Swept
from service.core.tombstones import stone_key
from service.core.types import ClientKey
from tests.desk import HOUR, Desk, request
from tests.fakes import LeakyIntegrator, make_spec, serve

T0 = 1_699_920_000.0  # well before the clock of the tests
DAY = 86400.0


def sweep(desk, **settings):
    """One whole sweep; what it came by."""
    one, swept, cursor = Sweep(desk.registry, desk.store, desk.store, desk.clock, **settings), Swept(), None
    while (cursor := one.slice(cursor, swept)) is not None:
        pass
    return swept


def swept_after(desk, seconds, **settings):
    desk.clock.now += seconds
    return sweep(desk, **settings)


def stone(desk):
    found = desk.store.load(stone_key(desk.key))
    return None if found is None else tombstones.decode(stone_key(desk.key), found.blob)


def test_what_idles_beyond_its_time_is_buried_and_what_does_not_stays(desk):
    desk.send(1, 2)
    young = desk.key._replace(client="young")
    desk.clock.now += WEEK_S / 2
    desk.predictor.predict(young, request(1))
    swept = swept_after(desk, WEEK_S / 2 + 61)
    assert (swept.buried, swept.active) == ({"toy": 1}, {"toy": 0})
    assert desk.stored() is None
    assert desk.store.load(young) is not None
    assert (stone(desk).step, stone(desk).label, stone(desk).buried) == (2, "stable", desk.clock.now)
    assert sweep(desk).buried == {}


def test_a_client_is_not_swept_at_the_moment_it_expires_as_other_clocks_may_be_behind(desk):
    desk.send(1)
    assert swept_after(desk, WEEK_S + 1).buried == {}
    assert desk.send(2).state.reason == "expired"


def test_clients_heard_of_within_the_hour_are_counted_as_active(desk):
    desk.send(1)
    desk.predictor.predict(desk.key._replace(client="b"), request(1))
    assert sweep(desk).active == {"toy": 2}
    assert swept_after(desk, HOUR + 1).active == {"toy": 0}


def test_a_slow_model_keeps_its_clients_for_thirty_intervals():
    desk = Desk(make_spec(interval_s=DAY))
    desk.send(1)
    assert swept_after(desk, 29 * DAY).buried == {}
    assert swept_after(desk, DAY + 61).buried == {"toy": 1}


def test_a_time_to_live_that_was_set_counts_for_every_model(desk):
    desk.send(1)
    assert swept_after(desk, 100, idle_ttl_s=100).buried == {}
    assert swept_after(desk, 11, idle_ttl_s=100).buried == {"toy": 1}


def test_clients_of_a_model_that_is_not_served_are_left_alone(desk):
    desk.send(1)
    before = desk.stored()
    desk.registry.replace({})
    assert swept_after(desk, 10 * WEEK_S, idle_ttl_s=1.0).buried == {}
    assert desk.stored() == before


def test_a_swept_client_is_answered_as_an_expired_one_is(desk):
    """Swept or not yet: the same step, reason and prediction."""
    other = Desk(make_spec())
    for one in (desk, other):
        one.send(1, 2, 3)
        one.clock.now += WEEK_S + 61
    sweep(desk)
    assert desk.stored() is None
    assert other.stored() is not None
    answers = [one.send(4, step=4) for one in (desk, other)]
    assert answers[0].state == answers[1].state
    assert answers[0].y.tolist() == answers[1].y.tolist()
    assert [answer.step for answer in answers] == [4, 4]
    assert (answers[0].state.status, answers[0].state.reason) == ("restarted", "expired")
    assert answers[0].state.last_seen == desk.clock.now - WEEK_S - 61
    assert [one.send(5).step for one in (desk, other)] == [5, 5]
    replay = desk.send(5, step=5)
    assert replay.replayed


def test_a_restart_after_a_sweep_goes_on_from_the_number_without_naming_it(desk):
    desk.send(1, 2, 3)
    swept_after(desk, WEEK_S + 61)
    assert desk.send(4).step == 4


@pytest.mark.parametrize(("step", "why"), [(1, "behind"), (3, "behind"), (5, "ahead")])
def test_a_step_that_does_not_follow_the_tombstone_conflicts_and_moves_nothing(desk, step, why):
    desk.send(1, 2, 3)
    swept_after(desk, WEEK_S + 61)
    before = desk.store.scan(None, 10)
    with pytest.raises(OrderConflict, match=why) as refused:
        desk.send(4, step=step)
    assert refused.value.extra == {"expected_step": 4}
    assert desk.store.scan(None, 10) == before


def test_times_have_to_follow_the_last_one_that_the_tombstone_remembers(hourly):
    hourly.send(1, times=(T0,))
    swept_after(hourly, WEEK_S + 61)
    with pytest.raises(OrderConflict) as refused:
        hourly.send(2, times=(T0,))
    assert refused.value.code == "time_conflict"
    assert hourly.send(2, times=(T0 + 5 * HOUR,)).state.reason == "expired"


def test_a_tombstone_keeps_label_and_generation():
    desk = Desk(make_spec())
    second = make_spec(version=2, fingerprint="11")
    serve(desk.registry, desk.spec, desk.engine)
    versions = {1: desk.registry.model("toy").versions[1]}
    serve(desk.registry, second, LeakyIntegrator(0.25), generation=7)
    versions |= desk.registry.model("toy").versions
    desk.registry.replace({"toy": ServedModel("toy", 7, {"stable": 1, "candidate": 2}, versions)})
    desk.send(1)
    records = Records(desk.store, desk.clock)
    stored, record = records.load(desk.key, desk.spec)
    record.label = "candidate"
    assert records.save(desk.key, stored, record)
    swept_after(desk, WEEK_S + 61)
    assert (stone(desk).label, stone(desk).generation) == ("candidate", 7)
    assert desk.send(2).version == 2
    again = decode(desk.key, desk.stored())
    assert (again.label, again.generation, again.created) == ("candidate", 7, record.created)


def test_a_record_that_has_seen_newer_labels_makes_the_next_one_read_them_after_a_sweep_too(desk):
    serve(desk.registry, desk.spec, desk.engine, generation=5)
    desk.send(1)
    swept_after(desk, WEEK_S + 61)
    serve(desk.registry, desk.spec, desk.engine, generation=4)
    asked = []

    def reload(name):
        asked.append(name)
        serve(desk.registry, desk.spec, desk.engine, generation=5)

    desk.registry.on_stale = reload
    desk.send(2)
    assert asked == ["toy"]
    assert decode(desk.key, desk.stored()).generation == 5


def test_what_is_asked_of_a_swept_client_is_not_found_and_says_since_when(desk):
    desk.send(1)
    swept_after(desk, WEEK_S + 61)
    for ask in (
        lambda: desk.predictor.inspect(desk.key),
        lambda: desk.predictor.forecast(desk.key, 2),
        lambda: desk.predictor.gates(desk.key, 2),
    ):
        with pytest.raises(ClientNotFound, match="expired") as refused:
            ask()
        assert refused.value.extra == {"last_seen": "2023-11-14T22:13:20.000Z"}
    with pytest.raises(ClientNotFound) as refused:
        desk.predictor.inspect(desk.key._replace(client="never"))
    assert refused.value.extra == {}


def test_a_swept_client_that_is_deleted_begins_anew(desk):
    desk.send(1, 2)
    swept_after(desk, WEEK_S + 61)
    assert desk.predictor.forget(desk.key) is True
    assert desk.predictor.forget(desk.key) is False
    assert desk.store.scan(None, 10).entries == []
    answer = desk.send(1, step=1)
    assert (answer.step, answer.state.status) == (1, "started")


def test_a_swept_client_that_is_given_a_history_begins_anew(desk):
    desk.send(1, 2)
    swept_after(desk, WEEK_S + 61)
    assert (desk.prime(7).step, desk.send(8).step) == (1, 2)


def test_a_tombstone_is_dropped_after_thirty_days_and_the_client_is_new(desk):
    desk.send(1, 2)
    swept_after(desk, WEEK_S + 61)
    assert swept_after(desk, MONTH_S).tombstones_dropped == 0
    assert swept_after(desk, 1).tombstones_dropped == 1
    assert desk.store.scan(None, 10).entries == []
    assert desk.send(1).state.status == "started"


def test_an_old_tombstone_beside_a_record_means_nothing_and_is_replaced_at_the_next_burial(desk):
    desk.send(1, 2)
    swept_after(desk, WEEK_S + 61)
    assert desk.send(3).step == 3
    assert stone(desk).step == 2
    assert desk.send(4).state.status == "carried"
    swept_after(desk, WEEK_S + 61)
    assert stone(desk).step == 4
    assert desk.send(5).step == 5


def test_swept_clients_tombstones_and_what_was_set_aside_take_no_room():
    desk = Desk(make_spec(), limits=Limits(max_clients=1))
    desk.send(1)
    torn = desk.key._replace(client="torn")
    with pytest.raises(AtCapacity):
        desk.predictor.predict(torn, request(1))
    swept_after(desk, WEEK_S + 61)
    desk.clock.now += 11  # the count is looked up every 10 s
    assert desk.predictor.predict(torn, request(1)).step == 1
    with pytest.raises(AtCapacity):  # one that comes back needs room as well, and is told to wait for it
        desk.send(2)
    desk.store.save(torn, desk.store.load(torn).nonce, b"torn....", b"torn")
    assert desk.predictor.predict(torn, request(1)).state.reason == "corrupt"
    assert desk.store.count("default", "toy") == 1
    desk.predictor.forget(torn)
    assert desk.send(2).step == 2


def test_what_was_set_aside_is_dropped_after_thirty_days(desk):
    desk.send(1)
    desk.store.save(desk.key, desk.store.load(desk.key).nonce, b"torn....", b"torn")
    desk.send(2)
    aside = quarantine.place(desk.key)
    assert swept_after(desk, MONTH_S).quarantined_dropped == 0
    assert desk.store.load(aside) is not None
    assert swept_after(desk, 1).quarantined_dropped == 1
    assert desk.store.load(aside) is None


def test_what_a_sweep_does_not_understand_it_leaves_alone(desk):
    desk.send(1)
    foreign = {
        desk.key._replace(client="torn"): desk.stored()[:-1],
        desk.key._replace(client="another's"): desk.stored(),
        desk.key._replace(client="short"): b"",
        desk.key._replace(tenant="~expired~default", client="foreign"): b"no tombstone",
        desk.key._replace(tenant="~quarantine~default"): b"nothing that was wrapped",
        desk.key._replace(tenant="~expired~default", client="newer"): b"RCT\x02" + bytes(80),
        ClientKey("~later", "toy", "x"): b"of a later release",
    }
    for key, blob in foreign.items():
        desk.store.save(key, None, b"foreign.", blob)
    assert swept_after(desk, 10 * WEEK_S).buried == {"toy": 1}
    for key, blob in foreign.items():
        assert desk.store.load(key) == (b"foreign.", blob)


# -- what happens meanwhile ---------------------------------------------------------------------------------------


class Meanwhile:
    """A store in which something happens just before or after one of its writes, or which breaks there."""

    def __init__(self, inner, at, then):
        self.inner, self.at, self.then, self.writes = inner, at, then, 0

    def load(self, key):
        return self.inner.load(key)

    def _write(self, write, *args):
        self.writes += 1
        if (self.writes, "before") == self.at:
            self.then()
        done = write(*args)
        if (self.writes, "after") == self.at:
            self.then()
        return done

    def save(self, *args):
        return self._write(self.inner.save, *args)

    def delete(self, *args):
        return self._write(self.inner.delete, *args)


MOMENTS = [(1, "before"), (1, "after"), (2, "before"), (2, "after")]


def bury(desk, store):
    stored, record = Records(desk.store, desk.clock).load(desk.key, desk.spec)
    return Records(store, desk.clock).bury(desk.key, stored.nonce, record)


def broken():
    raise StoreUnavailable("broken off")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("comes_back", [False, True], ids=["away", "back"])
def test_a_burial_broken_off_at_any_point_is_harmless(desk, moment, comes_back):
    """The sweeper dies there, for good; the client goes on by its number, and a later sweep ends what was begun."""
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61
    with pytest.raises(StoreUnavailable):
        bury(desk, Meanwhile(desk.store, moment, broken))
    assert (desk.stored() is None) == (moment == (2, "after"))
    if not comes_back:
        assert sweep(desk).buried == ({} if moment == (2, "after") else {"toy": 1})
        assert (desk.stored(), stone(desk).step) == (None, 3)
    answer = desk.send(4, step=4)
    assert (answer.step, answer.state.reason) == (4, "expired")
    assert desk.send(5, step=5).state.status == "carried"
    assert sweep(desk).buried == {}


@pytest.mark.parametrize("moment", MOMENTS[:3])
def test_a_client_that_comes_back_meanwhile_is_never_buried(desk, moment):
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61
    assert bury(desk, Meanwhile(desk.store, moment, lambda: desk.send(4, step=4))) is False
    assert decode(desk.key, desk.stored()).step == 4
    assert stone(desk) is None
    assert desk.send(5, step=5).state.status == "carried"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_deleted_meanwhile_leaves_no_tombstone(desk, moment):
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61
    bury(desk, Meanwhile(desk.store, moment, lambda: desk.predictor.forget(desk.key)))
    assert desk.store.scan(None, 10).entries == []
    assert desk.send(1, step=1).state.status == "started"


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_client_buried_while_it_is_deleted_leaves_no_tombstone(desk, write):
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61
    store = desk.predictor._records._store
    desk.predictor._records._store = Meanwhile(store, (write, "before"), lambda: bury(desk, store))
    assert desk.predictor.forget(desk.key) is True
    desk.predictor._records._store = store
    assert desk.store.scan(None, 10).entries == []
    assert desk.send(1, step=1).state.status == "started"


@pytest.mark.parametrize("moment", MOMENTS)
def test_of_two_that_bury_the_same_client_none_takes_the_tombstone_away(desk, moment):
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61
    buried = []

    def other():
        found = desk.store.load(desk.key)
        if found is not None:
            record = decode(desk.key, found.blob)
            buried.append(Records(desk.store, desk.clock).bury(desk.key, found.nonce, record))

    buried.append(bury(desk, Meanwhile(desk.store, moment, other)))
    assert buried.count(True) == 1
    assert (desk.stored(), stone(desk).step) == (None, 3)
    assert desk.send(4, step=4).state.reason == "expired"


def test_whoever_finds_the_tombstone_laid_already_never_takes_it_away(desk):
    """One laid it and is slow; another replaces it, and the first then deletes the record before the other does."""
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61
    nonce = desk.store.load(desk.key).nonce
    with pytest.raises(StoreUnavailable):
        bury(desk, Meanwhile(desk.store, (1, "after"), broken))
    assert bury(desk, Meanwhile(desk.store, (2, "before"), lambda: desk.store.delete(desk.key, nonce))) is False
    assert (desk.stored(), stone(desk).step) == (None, 3)
    assert desk.send(4, step=4).state.reason == "expired"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sweeper_far_behind_never_replaces_the_tombstone_of_a_later_record(desk, moment):
    """It read the record, was held up until the client had come back and expired again, and goes on meanwhile."""
    desk.send(1, 2, 3)
    read = desk.store.load(desk.key)
    desk.clock.now += WEEK_S + 61
    desk.send(4)
    desk.clock.now += WEEK_S + 61

    def late():
        late_one = Records(desk.store, desk.clock)
        assert late_one.bury(desk.key, read.nonce, decode(desk.key, read.blob)) is False

    assert bury(desk, Meanwhile(desk.store, moment, late)) is True
    assert (desk.stored(), stone(desk).step) == (None, 4)
    assert desk.send(5, step=5).state.reason == "expired"


def test_a_sweeper_held_up_after_its_look_at_the_tombstone_replaces_no_later_one(desk):
    desk.send(1, 2, 3)
    desk.clock.now += WEEK_S + 61

    def meanwhile():
        desk.send(4)
        desk.clock.now += WEEK_S + 61
        assert sweep(desk).buried == {"toy": 1}

    assert bury(desk, Meanwhile(desk.store, (1, "before"), meanwhile)) is False
    assert (desk.stored(), stone(desk).step) == (None, 4)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_deletion_broken_off_at_any_point_leaves_the_client_or_nothing(desk, first):
    desk.send(1, 2)
    swept_after(desk, WEEK_S + 61)
    desk.send(3)
    store = desk.predictor._records._store
    desk.predictor._records._store = Meanwhile(store, (first, "after"), broken)
    with pytest.raises(StoreUnavailable):
        desk.predictor.forget(desk.key)
    desk.predictor._records._store = store
    assert desk.send(4).step == (1 if first == 3 else 4)


# -- tombstones that do not read ------------------------------------------------------------------------------------


def test_a_tombstone_says_what_it_was_told(desk):
    place = stone_key(desk.key)
    told = tombstones.Tombstone("a label, å", 7, 1042, 1.5, 2.5, 3.5, 4.5, b"12345678")
    assert tombstones.decode(place, tombstones.encode(place, told)) == told


def test_no_torn_foreign_or_truncated_tombstone_is_believed(desk, caplog):
    """Every bit flipped, every length cut, every other format: ignored, logged, and the client is a new one."""
    desk.send(1, 2)
    swept_after(desk, WEEK_S + 61)
    place = stone_key(desk.key)
    whole = desk.store.load(place).blob
    torn = [whole[:size] for size in range(len(whole))]
    torn += [whole + b"\0", whole * 2]
    torn += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    torn += [whole[:3] + bytes([version]) + whole[4:] for version in range(256) if version != 1]
    other = place._replace(client="another")
    torn.append(tombstones.encode(other, tombstones.decode(place, whole)))
    for blob in torn:
        caplog.clear()
        desk.store.save(place, desk.store.load(place).nonce, b"torn....", blob)
        answer = desk.send(7.0)
        assert (answer.step, answer.state.status, answer.state.context) == (1, "started", 1)
        np.testing.assert_array_equal(answer.y[0, :, 0], [3.5])
        assert "tombstone ignored" in caplog.text
        assert desk.store.delete(desk.key)
