"""A state belongs to its weights: under others it is rebuilt from the client's own observations, and says so."""

import numpy as np
import pytest

from service.core import quarantine
from service.core.errors import ClientNotFound, Unsupported
from service.core.patience import WouldWait, hurried
from service.core.predictor import Predictor
from service.core.record import decode, encode
from service.core.registry import AGAIN_S, Served, ServedModel
from tests.desk import HOUR, Desk, request
from tests.fakes import LeakyIntegrator, SettableClock, make_spec, registry_of, serve


def update(desk, leak=0.25, **spec):
    """Serve version 2 with other weights."""
    engine = LeakyIntegrator(leak)
    spec = make_spec(version=2, fingerprint="11", interval_s=desk.spec.interval_s, **spec)
    serve(desk.registry, spec, engine, generation=2)
    return spec, engine


def test_the_state_is_rebuilt_from_the_context_and_the_answer_says_so(desk):
    desk.send(1, 2, 3)
    spec, _ = update(desk)
    answer = desk.send(4)
    alone = Desk(spec, engine=LeakyIntegrator(0.25))
    assert answer.y.tolist() == [alone.send(1, 2, 3, 4).y[-1].tolist()]
    assert (answer.version, answer.step, answer.state.context) == (2, 4, 4)
    assert (answer.state.status, answer.state.reason) == ("rebuilt", "model_updated")
    assert desk.send(5).state.status == "carried"


def test_what_was_predicted_by_the_old_version_is_what_is_scored(desk):
    told = desk.send(1, 2).y[-1, 0, 0]
    update(desk)
    assert desk.send(4).previous.predicted[0] == told


def test_only_the_kept_context_stands_behind_a_rebuilt_state():
    desk = Desk(make_spec(context_length=3))
    desk.send(*range(10))
    update(desk, context_length=3)
    assert desk.send(1).state.context == 4


def test_filled_steps_are_filled_anew():
    desk = Desk(make_spec(interval_s=HOUR))
    t0 = desk.clock.now - 100 * HOUR
    desk.send(8, times=(t0,))
    desk.send(6, times=(t0 + 3 * HOUR,))
    spec, _ = update(desk)
    alone = Desk(spec, engine=LeakyIntegrator(0.25))
    alone.send(8, times=(t0,))
    alone.send(6, times=(t0 + 3 * HOUR,))
    times = (t0 + 4 * HOUR,)
    answer = desk.send(5, times=times)
    assert answer.y.tolist() == alone.send(5, times=times).y.tolist()
    assert (answer.state.context, answer.state.filled) == (3, 0)


def test_filled_steps_before_the_first_kept_observation_are_left_out_of_a_rebuilt_state():
    """There is nothing to fill them with: their observation has left the context."""
    desk = Desk(make_spec(interval_s=HOUR, context_length=4))
    t0 = desk.clock.now - 100 * HOUR
    desk.send(8, times=(t0,))
    desk.send(6, times=(t0 + 3 * HOUR,))
    desk.send(2, times=(t0 + 4 * HOUR,))
    assert np.isnan(decode(desk.key, desk.stored()).context[0, 0])
    spec, _ = update(desk, context_length=4)
    alone = Desk(spec, engine=LeakyIntegrator(0.25))
    alone.send(6, 2)
    answer = desk.send(5, times=(t0 + 5 * HOUR,))
    assert answer.y.tolist() == alone.send(5).y.tolist()
    assert (answer.step, answer.state.context) == (4, 3)


@pytest.mark.parametrize("kept", [2, 8, 100])
def test_a_version_with_another_context_length_rebuilds_from_what_there_is_and_keeps_its_own(kept):
    desk = Desk(make_spec(context_length=8))
    desk.send(*range(20))
    update(desk, context_length=kept)
    answer = desk.send(1)
    assert (answer.state.status, answer.state.context) == ("rebuilt", 9)
    assert len(decode(desk.key, desk.stored()).context) == min(kept, 9)


def test_a_client_that_expired_before_an_update_starts_anew_under_the_new_weights(desk):
    desk.send(1, 2, 3)
    spec, _ = update(desk)
    desk.clock.now += 8 * 24 * HOUR
    answer = desk.send(4)
    assert (answer.state.status, answer.state.reason, answer.state.context) == ("restarted", "expired", 1)
    assert answer.y.tolist() == Desk(spec, engine=LeakyIntegrator(0.25)).send(4).y.tolist()


def test_a_primed_client_is_rebuilt_and_marked_on_what_it_was_told_though_the_new_version_has_other_quantiles():
    desk = Desk(make_spec())
    told = desk.prime(1, 2).y[-1, 0, 0]

    class PointOnly(LeakyIntegrator):
        def step(self, x, state):
            y, following = super().step(x, state)
            return np.ascontiguousarray(y[..., :1]), following

    spec2 = make_spec(version=2, fingerprint="11", quantiles=(), interval_columns=None, residuals=None, level=None)
    serve(desk.registry, spec2, PointOnly(0.25), generation=2)
    answer = desk.send(4)
    assert (answer.state.status, answer.previous.predicted[0], answer.interval) == ("rebuilt", told, None)


def test_a_retry_across_an_update_gets_the_answer_of_the_version_that_gave_it(desk):
    first = desk.send(1, step=1)
    update(desk)
    again = desk.send(1, step=1)
    assert (again.version, again.replayed) == (1, True)
    assert again.y.tolist() == first.y.tolist()


def test_reading_rebuilds_in_passing_without_moving(desk):
    desk.send(1, 2, 3)
    update(desk)
    before = desk.stored()
    assert desk.predictor.forecast(desk.key, 2).state.status == "rebuilt"
    assert desk.stored() == before
    assert desk.predictor.inspect(desk.key).version is None, "version 1 is not served any more"


def test_a_client_whose_label_is_gone_falls_back_to_stable(desk):
    spec2, engine2 = make_spec(version=2, fingerprint="11"), LeakyIntegrator(0.25)
    both = {1: Served(desk.spec, desk.engine, {}), 2: Served(spec2, engine2, {})}
    desk.registry.replace({"toy": ServedModel("toy", 1, {"stable": 1, "trial": 2}, both)})
    desk.send(1)
    found = desk.store.load(desk.key)
    record = decode(desk.key, found.blob)
    record.label = "trial"
    assert desk.store.save(desk.key, found.nonce, b"12345678", encode(desk.key, record))
    assert desk.send(2).version == 2
    desk.registry.replace({"toy": ServedModel("toy", 2, {"stable": 1}, both)})
    answer = desk.send(3)
    assert (answer.version, answer.state.reason) == (1, "label_gone")


@pytest.mark.parametrize("step", [None, 1042])
def test_an_unreadable_record_is_set_aside_and_the_client_restarts(desk, step, caplog):
    desk.send(1, 2, 3)
    found = desk.store.load(desk.key)
    torn = found.blob[:-1]
    desk.store.save(desk.key, found.nonce, b"torn....", torn)
    answer = desk.send(4, step=step)
    aside = quarantine.place(desk.key)
    assert (answer.state.status, answer.state.reason, answer.state.context) == ("restarted", "corrupt", 1)
    assert answer.step == (1 if step is None else step)
    assert quarantine.unwrap(aside, desk.store.load(aside).blob) == (desk.clock.now, torn)
    assert "set aside" in caplog.text
    assert desk.send(5).state.status == "carried"


def test_the_prediction_is_marked_by_the_next_observation(desk):
    first = desk.send(8)
    answer = desk.send(5)
    assert answer.previous.predicted.tolist() == first.y[0, :, 0].tolist()
    assert answer.previous.observed.tolist() == [5]
    (live,) = desk.predictor.inspect(desk.key).live
    assert (live.target, live.mae, live.rmse, live.naive_rmse, live.coverage) == ("a", 1.0, 1.0, 3.0, 1.0)


def test_live_errors_forget_slowly(desk):
    for value in [0.0] * 2000:
        desk.send(value)
    desk.send(10.0)
    view = desk.predictor.inspect(desk.key)
    assert view.scored == 2000
    assert view.live[0].rmse == pytest.approx(10 / np.sqrt(256), rel=0.05)


def test_interleaved_models_do_not_share_clients(desk):
    serve(desk.registry, make_spec(name="other", fingerprint="22"), LeakyIntegrator())
    desk.send(1)
    assert desk.predictor.predict(desk.key._replace(model="other"), request(1)).state.status == "started"


@pytest.mark.parametrize("columns", [(1, 2), None])
def test_a_retry_across_an_update_keeps_interval_level_and_look_ahead(columns):
    """Version 2 has other residuals, another level and other weights; version 1 is still loaded at first."""
    desk = Desk(make_spec(interval_columns=columns))
    first = desk.send(8, step=1, horizon=3)
    spec2 = make_spec(version=2, fingerprint="11", interval_columns=columns, level=0.5,
                      residuals=np.full((4, 1, 2), 9, np.float32))  # fmt: skip
    both = {1: Served(desk.spec, desk.engine, {}), 2: Served(spec2, LeakyIntegrator(0.25), {})}
    desk.registry.replace({"toy": ServedModel("toy", 2, {"stable": 2}, both)})
    again = desk.send(8, step=1, horizon=3)
    assert again.replayed
    assert (again.level, again.version) == (first.level, 1)
    assert again.interval.tolist() == first.interval.tolist()
    assert again.ahead.tolist() == first.ahead.tolist()
    del both[1]
    desk.registry.replace({"toy": ServedModel("toy", 2, {"stable": 2}, both)})
    assert desk.send(8, step=1, horizon=3).ahead is None, "left out rather than another version's"


def test_the_first_mark_after_an_update_is_against_the_interval_that_was_told():
    desk = Desk(make_spec())
    desk.send(0)
    update(desk, residuals=np.array([[[-99.0, 99.0]]], np.float32), interval_columns=None)
    desk.send(50)
    assert desk.predictor.inspect(desk.key).live[0].coverage == 0.0


@pytest.mark.parametrize("write", [Desk.send, Desk.prime])
def test_a_record_never_goes_back_a_label_generation(desk, write):
    """Two workers over one store; one has read the labels of generation 2, the other still serves generation 1."""
    desk.send(1)
    spec2, engine2 = make_spec(version=2, fingerprint="11"), LeakyIntegrator(0.25)
    ahead = registry_of(spec2, engine2)
    serve(ahead, spec2, engine2, generation=2)
    other = Predictor(ahead, desk.store, desk.clock)
    assert other.predict(desk.key, request(2)).version == 2
    asked = []

    def read_labels_again(name):
        asked.append(name)
        serve(desk.registry, spec2, engine2, generation=2)

    desk.registry.on_stale = read_labels_again
    answer = write(desk, 3)
    assert (answer.version, asked) == (2, ["toy"])
    assert answer.state.status == ("carried" if write is Desk.send else "started")


def test_a_repository_that_really_went_back_is_served_and_the_generation_is_kept(desk):
    desk.send(1)
    spec2 = make_spec(version=2, fingerprint="11")
    serve(desk.registry, spec2, LeakyIntegrator(0.25), generation=5)
    desk.send(2)
    serve(desk.registry, desk.spec, desk.engine, generation=1)
    assert desk.send(3).version == 1
    assert decode(desk.key, desk.stored()).generation == 5


def test_labels_behind_a_record_are_looked_up_once_a_second_and_not_for_each_step(desk):
    """A repository made anew stays behind for weeks; each look sends the request from the loop to a thread."""
    now, asked = SettableClock(0.0), []
    desk.registry._monotonic, desk.registry.on_stale = now, asked.append
    serve(desk.registry, desk.spec, desk.engine, generation=5)
    desk.send(1)
    serve(desk.registry, desk.spec, desk.engine, generation=3)
    desk.send(2)
    with hurried():
        desk.send(3)
        desk.send(4)
    assert asked == ["toy"]
    now.now += AGAIN_S
    with hurried(), pytest.raises(WouldWait):
        desk.send(5)
    desk.send(5)
    assert len(asked) == 2
    serve(desk.registry, desk.spec, desk.engine, generation=4)
    desk.send(6)
    assert len(asked) == 3, "other labels may be nearer"


def test_a_record_of_other_features_is_set_aside(desk):
    desk.send(1)
    serve(desk.registry, make_spec(("a", "b"), version=2, fingerprint="11"), LeakyIntegrator())
    answer = desk.send((1.0, 2.0))
    assert (answer.state.status, answer.state.reason) == ("restarted", "corrupt")


def test_a_past_that_new_weights_cannot_follow_restarts_the_client():
    desk = Desk(make_spec())
    desk.send(8e37, 8e37)
    spec2 = make_spec(version=2, fingerprint="11")
    serve(desk.registry, spec2, LeakyIntegrator(-9.0), generation=2)
    with np.errstate(all="ignore"):
        with pytest.raises(Unsupported, match="past"):
            desk.predictor.forecast(desk.key, 1)
        answer = desk.send(1)
    assert (answer.state.status, answer.state.reason, answer.state.context) == ("restarted", "model_updated", 1)


def test_an_unreadable_record_is_set_aside_once_and_forgotten_with_its_client(desk, caplog):
    desk.send(1)
    desk.store.save(desk.key, desk.store.load(desk.key).nonce, b"torn....", b"torn")
    for _ in range(3):
        with pytest.raises(ClientNotFound):
            desk.predictor.inspect(desk.key)
    assert caplog.text.count("set aside") == 1
    desk.predictor.forget(desk.key)
    assert desk.store.load(quarantine.place(desk.key)) is None
