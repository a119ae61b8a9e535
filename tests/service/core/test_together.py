"""Many clients in one call get what each would get alone: the same answers, refusals and records, to the byte."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.errors import RecurveError, StoreUnavailable
from service.core.many.asked import Asked
from service.core.many.layout import HEAD
from service.core.many.together import One, Together
from service.core.predictor import Limits, Predictor
from service.core.record import HEADER
from service.core.registry import Served, ServedModel
from service.core.requests import Answer, PredictRequest
from service.core.types import ClientKey
from service.http import render
from service.http.output import encode
from tests.desk import Desk
from tests.fakes import LeakyIntegrator, make_spec, serve

NAMES = [f"client-{n}" for n in range(14)]
HOUR = 3600.0


class Heard:
    """A witness of both kinds: marks and requests by client."""

    def __init__(self):
        self.told = []

    def witness(self, key, request, answer):
        self.told.append(self._one(key, request, answer))

    def witness_many(self, answers):
        for place, key in enumerate(answers.asked.keys):
            self.told.append(self._one(key, answers.asked.request(place), answers.answer(place)))

    @staticmethod
    def _one(key, request, answer):
        marks = None if answer.marks is None else answer.marks.sums
        return key.client, request.observations.tolist(), request.times, answer.step, answer.begun, marks


class Counter:
    """Both ways over a desk of their own, from the same requests."""

    def __init__(self, spec, limits):
        self.heard = Heard()
        self.desk = Desk(spec, limits)
        self.desk.predictor._witnesses = (self.heard,)
        desk = self.desk
        told = {"witnesses": (self.heard,), "recent": desk.predictor._recent}  # one memory for both, as in a process
        self.together = Together(desk.predictor, desk.registry, desk.store, desk.clock, limits, **told)

    def key(self, client):
        return ClientKey("default", self.desk.spec.name, client)

    def one_by_one(self, items):
        return [self._alone(self.key(client), asked) for client, asked in items]

    def _alone(self, key, asked):
        try:
            return self.desk.predictor.predict(key, asked)
        except RecurveError as error:
            return error

    def at_once(self, items):
        """Plain items as columns, the others as they are."""
        plain = [at for at, (_, asked) in enumerate(items) if len(asked.observations) == 1 and asked.horizon == 1]
        ones = [One(at, self.key(client), asked) for at, (client, asked) in enumerate(items) if at not in plain]
        outcomes = self.together.predict(self.desk.spec.name, columns(self, items, plain), plain, ones)
        found = dict(outcomes.ones)
        for places, answers in outcomes.many:
            assert len(places) == len(answers)
            found.update({place: answers.answer(at) for at, place in enumerate(places)})
        assert sorted(found) == list(range(len(items)))
        return [found[at] for at in range(len(items))], sum(len(answers) for _, answers in outcomes.many)

    def records(self):
        return {client: getattr(self.desk.store.load(self.key(client)), "blob", None) for client in NAMES}


def columns(counter, items, plain):
    """The requests of `items` at `plain` as columns; those that nobody uses are None."""
    asked = [items[at][1] for at in plain]
    steps = np.array([one.step or 0 for one in asked], np.int64)
    times = np.array([np.nan if one.times is None else one.times[0] for one in asked])
    keys, gaps = [one.idempotency_key for one in asked], [one.gap for one in asked]
    return Asked(
        tuple(counter.key(items[at][0]) for at in plain),
        np.concatenate([one.observations for one in asked]) if asked else np.empty((0, 2), np.float32),
        steps if steps.any() else None,
        None if np.isnan(times).all() else times,
        keys if any(keys) else None,
        gaps if any(gaps) else None,
    )


def said(outcome):
    """An outcome as it is told."""
    if isinstance(outcome, Answer):
        return encode(render.answer(outcome)), outcome.replayed
    assert isinstance(outcome, RecurveError), outcome
    return type(outcome), outcome.code, outcome.detail, outcome.extra


SPECS = {
    "plain": {"features": ("a", "b")},
    "hourly": {"features": ("a", "b"), "interval_s": HOUR},
    "one target of two": {"features": ("a", "b"), "predicts": ("b",), "initial_state": np.zeros(2, np.float32)},
    "no interval": {"features": ("a", "b"), "interval_columns": None, "residuals": None, "level": None},
    "from residuals": {"features": ("a", "b"), "interval_columns": None},
    "limited": {"features": ("a", "b"), "limits": ((-3.0, 3.0), (-1.0, 2.0))},
}


class Half(LeakyIntegrator):
    """Predicts the second feature only."""

    def step(self, x, state):
        y, following = super().step(x, state)
        return y[:, 1:], following


def engine_of(spec):
    return Half() if len(spec.targets) == 1 else LeakyIntegrator()


def pair(name, limits):
    spec = make_spec(**SPECS[name])
    counters = Counter(spec, limits), Counter(spec, limits)
    for counter in counters:
        serve(counter.desk.registry, spec, engine_of(spec))
    return counters


number = st.floats(-4, 4, width=32)


@st.composite
def item(draw, usual):
    """A client and what is unusual of its request: how its step, its time and its key stand to its last ones."""
    client = draw(st.sampled_from(NAMES))
    if usual:
        return client, 1, draw(number), "none", "none", "none", None, 1
    n = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    step = draw(st.sampled_from(["none", "none", "next", "next", "same", "behind", "ahead"]))
    time = draw(st.sampled_from(["none", "none", "next", "next", "gap", "same", "soon", "late", "future"]))
    key = draw(st.sampled_from(["none", "none", "new", "old"]))
    gap = draw(st.sampled_from([None, None, "fill", "restart", "reject"]))
    return client, n, draw(number), step, time, key, gap, draw(st.sampled_from([1, 1, 1, 3]))


@st.composite
def calls(draw):
    """Calls one after another, most of them of all clients at once and as usual but for a few items."""
    found = []
    for _ in range(draw(st.integers(2, 6))):
        items = [(name, 1, draw(number), "none", "none", "none", None, 1) for name in NAMES]
        if draw(st.booleans()):
            items = [(name, 1, value, "next", "next", "new", None, 1) for name, _, value, *_ in items]
        for one in draw(st.lists(item(draw(st.booleans())), max_size=5)):
            items.insert(draw(st.integers(0, len(items))), one)
        for _ in range(draw(st.integers(0, 3))):
            del items[draw(st.integers(0, len(items) - 1))]
        found.append((draw(st.sampled_from([0.0, 60.0, HOUR, HOUR, 30 * 86400.0])), items))
    return found


def requests_of(drawn, counter, serial):
    """What is drawn, as requests that fit where the counter's clients stand."""
    now, found = counter.desk.clock.now, []
    for at, (client, n, value, step, time, key, gap, horizon) in enumerate(drawn):
        last = getattr(counter, "last", {}).get(client)
        expected = 1 if last is None else last[0] + 1
        steps = {"none": None, "next": expected, "same": max(1, expected - 1), "behind": max(1, expected - 3),
                 "ahead": expected + 2}  # fmt: skip
        before = now - HOUR if last is None else last[1]
        moments = {"none": None, "next": before + HOUR, "gap": before + 3 * HOUR, "same": before, "soon": before + 60,
                   "late": before - HOUR, "future": now + 9 * HOUR}  # fmt: skip
        first = moments[time]
        rows = np.array([[value + 0.25 * i, 1.0 - value] for i in range(n)], np.float32)
        keys = {"none": None, "new": f"{serial}-{at}", "old": f"{serial - 1}-{at}"}
        found.append(
            (
                client,
                PredictRequest(
                    rows,
                    None if first is None else tuple(first + HOUR * i for i in range(n)),
                    steps[step],
                    keys[key],
                    gap,
                    horizon,
                ),
            )
        )
    return found


def remember(counter, items, outcomes):
    counter.last = getattr(counter, "last", {})
    for (client, asked), outcome in zip(items, outcomes, strict=True):
        if isinstance(outcome, Answer) and not outcome.replayed:
            time = counter.desk.clock.now if asked.times is None else asked.times[-1]
            counter.last[client] = outcome.step, time


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("adaptive", [True, False])
@settings(max_examples=40, deadline=None)
@given(drawn=calls())
def test_any_mixture_is_answered_and_kept_as_one_by_one(name, adaptive, drawn):
    limits = Limits(adaptive_intervals=adaptive)
    alone, crowd = pair(name, limits)
    for serial, (later, items) in enumerate(drawn):
        for counter in (alone, crowd):
            counter.desk.clock.now += later
        requests = requests_of(items, alone, serial)
        expected = alone.one_by_one(requests)
        found, _ = crowd.at_once(requests)
        assert [said(one) for one in found] == [said(one) for one in expected]
        assert crowd.records() == alone.records()
        remember(alone, requests, expected)
    assert sorted(crowd.heard.told, key=str) == sorted(alone.heard.told, key=str)


def usual(counter, value=1.0, names=NAMES):
    return [(name, PredictRequest(np.array([[value + n, 2.0]], np.float32))) for n, name in enumerate(names)]


def test_what_is_usual_goes_all_at_once_over_any_number_of_steps():
    alone, crowd = pair("hourly", Limits(adaptive_intervals=True))
    for step in range(60):
        for counter in (alone, crowd):
            counter.desk.clock.now += HOUR
        requests = usual(alone, 0.1 * step)
        expected = alone.one_by_one(requests)
        found, together = crowd.at_once(requests)
        assert [said(one) for one in found] == [said(one) for one in expected]
        assert together == (len(NAMES) if step else 0)  # the first are new clients
        assert crowd.records() == alone.records()


def test_the_headers_fields_are_those_of_the_record():
    assert HEAD.itemsize == HEADER.size
    packed = HEADER.pack(b"RCV\x02", b"12345678", *range(1, 5), *[0.5 * n for n in range(4)], *range(5, 13), True,
                         1, 2, 13, 14, 15, 16, 17, 2.5, True, 0.9)  # fmt: skip
    assert np.frombuffer(packed, HEAD)[0].tolist()[3:] == HEADER.unpack(packed)[2:]


def test_a_client_twice_in_a_call_is_absorbed_in_order():
    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    for counter in (alone, crowd):
        counter.one_by_one(usual(counter))
    requests = usual(alone, 2.0) + usual(alone, 3.0) + usual(alone, 4.0, NAMES[:3])
    expected = alone.one_by_one(requests)
    found, together = crowd.at_once(requests)
    assert [said(one) for one in found] == [said(one) for one in expected]
    assert together == 2 * len(NAMES)
    assert crowd.records() == alone.records()


def test_a_candidates_shadow_is_stepped_as_well():
    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    for counter in (alone, crowd):
        counter.one_by_one(usual(counter))
        old = counter.desk.registry.model("toy")
        new = make_spec(**SPECS["plain"], version=2, fingerprint="22")
        versions = {**old.versions, 2: Served(new, LeakyIntegrator(0.25), {})}
        model = ServedModel("toy", 2, {"stable": 1, "candidate": 2}, versions)
        counter.desk.registry.replace({"toy": model})
    for value in (2.0, 3.0):
        requests = usual(alone, value)
        expected = alone.one_by_one(requests)
        found, _ = crowd.at_once(requests)
        assert [said(one) for one in found] == [said(one) for one in expected]
        assert crowd.records() == alone.records()


def test_a_full_store_turns_new_clients_away_and_no_others():
    alone, crowd = pair("plain", Limits(max_clients=12))
    for counter in (alone, crowd):
        counter.one_by_one(usual(counter, names=NAMES[:12]))
        counter.desk.clock.now += 20  # the count is taken anew
    requests = usual(alone, 2.0)
    expected = alone.one_by_one(requests)
    found, together = crowd.at_once(requests)
    assert [said(one) for one in found] == [said(one) for one in expected]
    assert [getattr(one, "code", None) for one in found] == [None] * 12 + ["at_capacity"] * 2
    assert together == 12


def test_a_damaged_record_restarts_its_client_and_no_other():
    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    for counter in (alone, crowd):
        for value in (1.0, 2.0):
            counter.one_by_one(usual(counter, value))
        for at, client in enumerate(NAMES[:4]):
            stored = counter.desk.store.load(counter.key(client))
            bytes_ = bytearray(stored.blob)
            bytes_[at * 60 + 5] ^= 4
            counter.desk.store.save(counter.key(client), stored.nonce, b"damaged" + bytes([at]), bytes(bytes_))
        swapped = [counter.desk.store.load(counter.key(client)) for client in NAMES[5:7]]
        for client, mine, other in zip(NAMES[5:7], swapped, swapped[::-1], strict=True):
            counter.desk.store.save(counter.key(client), mine.nonce, b"swapped!", other.blob)
    requests = usual(alone, 3.0)
    expected = alone.one_by_one(requests)
    found, together = crowd.at_once(requests)
    assert [said(one) for one in found] == [said(one) for one in expected]
    assert [one.state.reason for one in found].count("corrupt") == 6
    assert together == len(NAMES) - 6
    assert crowd.records() == alone.records()


def test_who_loses_its_race_is_absorbed_after_the_other():
    """Another process writes some clients' records between load and save."""
    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    for counter in (alone, crowd):
        counter.one_by_one(usual(counter))
    inner, others = crowd.desk.store.save_many, usual(alone, 9.0, NAMES[3:6])

    def late(saves):
        crowd.desk.store.save_many = inner
        crowd.one_by_one(others)
        return inner(saves)

    crowd.desk.store.save_many = late
    alone.one_by_one(others)
    requests = usual(alone, 2.0)
    expected = alone.one_by_one(requests)
    found, together = crowd.at_once(requests)
    assert [said(one) for one in found] == [said(one) for one in expected]
    assert together == len(NAMES) - 3
    assert crowd.records() == alone.records()


def test_an_engine_out_of_range_fails_its_item_and_no_other():
    class Fragile(LeakyIntegrator):
        def step(self, x, state):
            y, following = super().step(x, state)
            return np.where(x[:, :1, None] == 7, np.float32(np.inf), y), following

    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    for counter in (alone, crowd):
        serve(counter.desk.registry, counter.desk.spec, Fragile())
        counter.one_by_one(usual(counter, 20.0))
    requests = usual(alone, 3.0)  # the fifth is a 7
    expected = alone.one_by_one(requests)
    found, together = crowd.at_once(requests)
    assert [said(one) for one in found] == [said(one) for one in expected]
    assert found[4].code == "not_finite"
    assert together == len(NAMES) - 1
    assert crowd.records() == alone.records()


class Failing:
    """A store whose next save_many fails after its first `stored` saves."""

    def __init__(self, store, stored, down):
        self.store, self.stored, self.down, self.failing = store, stored, down, True

    def __getattr__(self, name):
        return getattr(self.store, name)

    def save_many(self, saves):
        if not self.failing:
            return self.store.save_many(saves)
        self.store.save_many(saves[: self.stored])
        raise StoreUnavailable("the disk is gone")

    def save(self, *save):
        if self.down:
            raise StoreUnavailable("the disk is gone")
        return self.store.save(*save)


def test_clients_whose_records_this_process_saved_last_are_not_loaded_and_others_are():
    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    loaded, load_many = [], crowd.desk.store.load_many
    crowd.desk.store.load_many = lambda keys: loaded.extend(key.client for key in keys) or load_many(keys)
    for counter in (alone, crowd):
        counter.one_by_one(usual(counter))  # begins them
    rival = Predictor(crowd.desk.registry, crowd.desk.store, crowd.desk.clock, Limits(adaptive_intervals=True))
    for step in (2.0, 3.0, 4.0, 5.0):
        expected = alone.one_by_one(usual(alone, step))
        if step == 4.0:  # another process was there in between
            alone.one_by_one(usual(alone, step)[:1])
            rival.predict(crowd.key(NAMES[0]), usual(crowd, step)[0][1])
        loaded.clear()
        found, _ = crowd.at_once(usual(crowd, step))
        if step == 4.0:
            expected[0] = alone.one_by_one(usual(alone, step)[:1])[0]
        assert [said(one) for one in found[1:]] == [said(one) for one in expected[1:]]
        if step > 2.0:
            assert set(loaded) <= {NAMES[0]}
    assert loaded == [NAMES[0]]  # overtaken: it is loaded for a while
    assert crowd.records().keys() == alone.records().keys()


@pytest.mark.parametrize("down", [False, True])
def test_a_save_in_doubt_is_made_sure_of_or_said_to_be(down):
    alone, crowd = pair("plain", Limits(adaptive_intervals=True))
    for counter in (alone, crowd):
        counter.one_by_one(usual(counter))
    requests = usual(alone, 2.0)
    expected = alone.one_by_one(requests)
    desk, failing = crowd.desk, Failing(crowd.desk.store, 5, down)
    crowd.together = Together(desk.predictor, desk.registry, failing, desk.clock, witnesses=(crowd.heard,))
    crowd.together._limits = Limits(adaptive_intervals=True)
    found, _ = crowd.at_once(requests)
    if down:
        assert all(isinstance(one, StoreUnavailable) and one.extra["in_doubt"] for one in found)
        records, before = crowd.records(), alone.records()
        assert [records[name] == before[name] for name in NAMES] == [True] * 5 + [False] * (len(NAMES) - 5)
    else:
        assert [said(one) for one in found] == [said(one) for one in expected]
        assert crowd.records() == alone.records()


def test_a_store_that_is_away_fails_every_item_within_the_bound():
    _, crowd = pair("plain", Limits(contention_s=0.0))
    crowd.one_by_one(usual(crowd))
    before = crowd.records()
    tried = []

    def away(keys):
        tried.append(keys)
        raise StoreUnavailable("the store is away")

    load, crowd.desk.store.load, crowd.desk.store.load_many = crowd.desk.store.load, away, away
    found, _ = crowd.at_once(usual(crowd, 2.0))
    assert all(isinstance(one, StoreUnavailable) and "in_doubt" not in one.extra for one in found)
    assert len(tried) == 2  # together, and one alone
    crowd.desk.store.load = load
    assert crowd.records() == before


def test_two_calls_at_the_same_clients_take_turns():
    """Two dozen calls in threads, each of all clients: every observation is absorbed once, none by the long way."""
    _, crowd = pair("plain", Limits(adaptive_intervals=True))
    crowd.one_by_one(usual(crowd))
    counts = []

    def call(value):
        counts.append(crowd.at_once(usual(crowd, value))[1])

    threads = [threading.Thread(target=call, args=(float(n),)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [len(NAMES)] * 24
    steps = {np.frombuffer(blob[: HEADER.size], HEAD)[0]["step"] for blob in crowd.records().values()}
    assert steps == {25}


def test_clients_that_another_call_keeps_are_waited_for_and_then_tried_alone():
    _, crowd = pair("plain", Limits(contention_s=0.05))
    crowd.one_by_one(usual(crowd))
    with crowd.together._turns.of([crowd.key(NAMES[0])], 1.0) as ours:
        assert ours
        found, together = crowd.at_once(usual(crowd, 2.0))
    assert together == 0
    assert [one.step for one in found] == [2] * len(NAMES)


def test_an_unknown_model_fails_the_call():
    _, crowd = pair("plain", Limits())
    with pytest.raises(RecurveError) as refused:
        crowd.together.predict("other", columns(crowd, usual(crowd), range(14)), list(range(14)), [])
    assert refused.value.code == "model_not_found"
