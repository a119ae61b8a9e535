"""Many writers, one winner at a time: every request is absorbed once, and a hopeless race ends bounded."""

import threading

import pytest

from service.core.errors import AtCapacity, Contended, OrderConflict
from service.core.predictor import Limits, Predictor
from service.core.types import ClientKey
from tests.desk import Desk, request
from tests.fakes import make_spec, serve


def test_concurrent_unnumbered_requests_are_each_absorbed_once(desk):
    """Two predictors over one store stand for two processes: their locks do not exclude each other."""
    other = Predictor(desk.registry, desk.store, desk.clock)
    steps = []

    def post(predictor):
        steps.extend(predictor.predict(desk.key, request(1)).step for _ in range(25))

    threads = [threading.Thread(target=post, args=(predictor,)) for predictor in (desk.predictor, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(steps) == list(range(1, 201))


def test_a_numbered_request_that_lost_the_race_is_judged_by_the_winners_record(desk):
    """Between this request's load and save another absorbs the same step with other values."""
    desk.send(1, step=1)
    rival = Predictor(desk.registry, desk.store, desk.clock)
    real_save = desk.store.save
    raced = []

    def save(*args):
        if not raced:
            raced.append(True)
            rival.predict(desk.key, request(7, step=2))
        return real_save(*args)

    desk.store.save = save
    with pytest.raises(OrderConflict) as refused:
        desk.send(2, step=2)
    assert refused.value.extra == {"expected_step": 3}


def test_a_race_never_won_is_refused_in_bounded_time():
    desk = Desk(make_spec(), limits=Limits(contention_s=0.05))
    desk.send(1)
    before = desk.stored()
    desk.store.save = lambda *args: False
    with pytest.raises(Contended):
        desk.send(2)
    assert desk.stored() == before


def test_beyond_the_capacity_new_clients_wait_and_known_ones_go_on():
    desk = Desk(make_spec(), limits=Limits(max_clients=2))
    for name in "ab":
        desk.predictor.predict(ClientKey("default", "toy", name), request(1))
    with pytest.raises(AtCapacity) as refused:
        desk.predictor.predict(ClientKey("default", "toy", "c"), request(1))
    assert refused.value.retry_after_s > 0
    assert desk.predictor.predict(ClientKey("default", "toy", "a"), request(1)).step == 2
    desk.predictor.forget(ClientKey("default", "toy", "b"))
    desk.clock.now += 11
    assert desk.predictor.predict(ClientKey("default", "toy", "c"), request(1)).step == 1


def test_every_model_and_tenant_has_room_of_its_own():
    desk = Desk(make_spec(), limits=Limits(max_clients=1))
    serve(desk.registry, make_spec(name="other"), desk.engine)
    desk.send(1)
    with pytest.raises(AtCapacity):
        desk.predictor.predict(desk.key._replace(client="second"), request(1))
    for elsewhere in (desk.key._replace(model="other"), desk.key._replace(tenant="another")):
        assert desk.predictor.predict(elsewhere, request(1)).step == 1
        with pytest.raises(AtCapacity):
            desk.predictor.predict(elsewhere._replace(client="second"), request(1))


def test_refused_requests_and_lost_races_take_no_room():
    desk = Desk(make_spec(), limits=Limits(max_clients=2))
    for _ in range(3):
        with pytest.raises(OrderConflict):
            desk.send(1, step=5)
    for _ in range(5):
        desk.send(1)
        desk.predictor.forget(desk.key)
    assert desk.send(1).step == 1
    assert desk.predictor.predict(desk.key._replace(client="second"), request(1)).step == 1


def test_a_clock_set_back_does_not_hold_the_count_for_a_day():
    desk = Desk(make_spec(), limits=Limits(max_clients=1))
    desk.send(1)
    desk.clock.now -= 86400
    desk.store.delete(desk.key)
    assert desk.predictor.predict(desk.key._replace(client="second"), request(1)).step == 1


def test_waiting_for_a_client_is_bounded():
    desk = Desk(make_spec(), limits=Limits(contention_s=0.05))
    with desk.predictor._locks.of(desk.key), pytest.raises(Contended):
        desk.send(1)
