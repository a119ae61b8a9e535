"""Looking ahead feeds predictions back and leaves the state where it is."""

import numpy as np
import pytest

from service.core.errors import ClientNotFound, InvalidInput, Unsupported
from tests.desk import Desk
from tests.fakes import make_spec


def test_the_first_step_ahead_is_the_prediction_itself(desk):
    answer = desk.send(8, horizon=3)
    assert answer.ahead[0].tolist() == answer.y[0].tolist()
    assert answer.ahead[:, 0, 0].tolist() == [4, 4, 4], "the leaky integrator expects its state to stay"


def test_intervals_further_ahead_come_from_the_residual_quantiles_until_they_end(desk):
    ahead = desk.send(8, horizon=6).ahead
    assert ahead[1:4, 0, 1:].tolist() == [[3, 5]] * 3
    assert np.isnan(ahead[4:, 0, 1:]).all()


def test_a_forecast_moves_nothing_and_agrees_with_the_predict(desk):
    ahead = desk.send(8, horizon=4).ahead
    before = desk.stored()
    assert desk.predictor.forecast(desk.key, 4).ahead.tolist() == ahead.tolist()
    assert desk.stored() == before


def test_a_model_without_quantiles_takes_its_interval_from_the_residuals():
    desk = Desk(make_spec(interval_columns=None))
    assert desk.send(8).interval.tolist() == [[[3, 5]]]
    bare = Desk(make_spec(interval_columns=None, residuals=None))
    assert bare.send(8).interval is None


def test_a_model_that_does_not_predict_all_its_features_says_which():
    desk = Desk(make_spec(("a", "b"), predicts=("a",)))
    with pytest.raises(Unsupported, match=r"horizon > 1 .* does not predict: b"):
        desk.send((1, 2), horizon=2)
    assert desk.stored() is None


@pytest.mark.parametrize("horizon", [0, -1, 1001])
def test_an_absurd_horizon_is_refused(desk, horizon):
    desk.send(1)
    with pytest.raises(InvalidInput, match=r"horizon"):
        desk.predictor.forecast(desk.key, horizon)


def test_there_is_no_forecast_for_an_unknown_or_expired_client(desk):
    with pytest.raises(ClientNotFound):
        desk.predictor.forecast(desk.key, 2)
    desk.send(1)
    desk.clock.now += 8 * 86400
    with pytest.raises(ClientNotFound):
        desk.predictor.forecast(desk.key, 2)
