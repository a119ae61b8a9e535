"""Networks: shapes, what they start as, what they remember, and that they survive saving."""

import keras
import numpy as np
import pytest

from training.job import Job
from training.networks import Statistics, build_network, memory

RNG = np.random.default_rng(5)
ARCHITECTURES = ["lstm", "gru", "simple_rnn", "feed_forward"]


def job(architecture="lstm", log=False, network=None, quantiles=(0.05, 0.5, 0.95)):
    level = {"name": "level", "unit": "m", "log": log, "floor": 0.1 if log else None}
    return Job.model_validate(
        {
            "name": "tank",
            "source": {"path": "tank.csv"},
            "architecture": architecture,
            "quantiles": quantiles,
            "features": [level, {"name": "inflow", "unit": "l/s"}],
            "targets": [{"name": "inflow"}, {"name": "level", "loss": "qlike" if log else "squared"}],
            "network": {"units": 5, "depth": 2, **(network or {})},
        }
    )


def values(n=200):
    return (np.cumsum(RNG.normal(size=(n, 2)), axis=0) + np.array([50, -7])).astype(np.float32)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("log", [False, True])
def test_every_architecture_goes_from_raw_to_raw_and_starts_at_the_last_value(architecture, log):
    known = np.abs(values()) + 1
    network = build_network(job(architecture, log), [known])
    y = np.asarray(network(known[None, :40]))
    assert y.shape == (1, 40, 2, 4)
    assert y.dtype == np.float32
    unit = np.std(np.diff(known, axis=0), axis=0)[[1, 0]]
    assert (np.abs(y[0, :, :, 0] - known[:40, [1, 0]]) < 0.5 * unit).all()
    assert (np.diff(y[..., 1:], axis=-1) > 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_survives_saving(tmp_path, architecture):
    settings = {"averages": [5.0], "running_scale": 20.0, "lags": 3}
    settings |= {"chrono_lag": 50} if architecture in ("lstm", "gru") else {}
    network = build_network(job(architecture, True, settings), [values()])
    network.save(tmp_path / "tank.keras")
    again = keras.saving.load_model(tmp_path / "tank.keras")
    x = values(30)[None]
    np.testing.assert_array_equal(np.asarray(network(x)), np.asarray(again(x)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_forecast_moves_when_later_observations_do(architecture):
    network = build_network(
        job(architecture, network={"averages": [5.0], "running_scale": 20.0, "lags": 4}), [values()]
    )
    x = values(40)
    later = x.copy()
    later[25:] += 30
    a, b = np.asarray(network(x[None]))[0], np.asarray(network(later[None]))[0]
    np.testing.assert_array_equal(a[:25], b[:25])
    assert (a[25:] != b[25:]).any()


@pytest.mark.parametrize("lags", [1, 3])
def test_feed_forward_sees_its_last_lags_inputs_and_nothing_before(lags):
    network = build_network(job("feed_forward", network={"lags": lags}), [values()])
    x = values(40)
    other = x.copy()
    other[: 40 - lags] = values(40)[: 40 - lags]
    np.testing.assert_allclose(np.asarray(network(x[None]))[0, -1], np.asarray(network(other[None]))[0, -1], rtol=1e-6)
    other[40 - lags] += 5
    assert not np.allclose(np.asarray(network(x[None]))[0, -1], np.asarray(network(other[None]))[0, -1], rtol=1e-6)


@pytest.mark.parametrize("architecture", ["lstm", "gru", "simple_rnn"])
def test_recurrent_networks_remember_what_lies_further_back(architecture):
    network = build_network(job(architecture), [values()])
    x = values(20)
    other = x.copy()
    other[:10] += 40
    assert not np.allclose(np.asarray(network(x[None]))[0, 12], np.asarray(network(other[None]))[0, 12], rtol=1e-6)


def test_statistics_are_those_of_the_training_values_and_a_constant_has_deviation_one():
    a = np.array([[1, 4], [3, 4], [2, 4]], np.float32)
    b = np.array([[6, 4], [8, 4]], np.float32)
    known = Statistics.of(job(), [a, b])
    assert known.means == [4, 4]
    assert known.deviations == pytest.approx([np.std([1, 3, 2, 6, 8]), 1])
    # the step from one series to the next is no change
    assert known.changes == pytest.approx([np.sqrt(np.mean([4, 1, 4])), 1])


def test_a_log_features_statistics_are_of_its_logarithm_with_zeros_at_the_floor():
    known = Statistics.of(job(log=True), [np.array([[0, 0], [1, 1], [np.e, 2]], np.float32)])
    assert known.means[0] == pytest.approx((np.log(0.1) + 0 + 1) / 3, rel=1e-6)


def test_no_quantiles_means_a_point_forecast_alone():
    assert build_network(job(quantiles=()), [values()]).output_shape == (None, None, 2, 1)


def test_the_same_seed_makes_the_same_network():
    weights = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        network = build_network(job(network={"chrono_lag": 30}), [values()])
        weights.append([each.numpy() for each in network.trainable_variables])
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_chrono_lag_starts_long_memories_and_is_refused_where_there_are_no_gates():
    x = keras.Input((None, 2))
    (bias,) = [each for each in keras.Model(x, memory(x, "lstm", 8, 1, chrono_lag=200)).weights if each.name == "bias"]
    assert (bias.numpy()[8:16] > 0).all()
    assert bias.numpy()[8:16].max() > 3
    with pytest.raises(ValueError, match="simple_rnn"):
        memory(x, "simple_rnn", 8, 1, chrono_lag=200)
