"""Preprocessing cells and the output head: closed forms, fading, and no surprise at a first step."""

import keras
import numpy as np
import pytest

from training.heads import Forecast
from training.layers import ChronoBias, PrepareCell, Standardise

RNG = np.random.default_rng(3)


def cell(floors=(None, None), averages=(4.0, 20.0), running_scale=10.0):
    return PrepareCell([1.0, 2.0], [3.0, 5.0], [0.5, 2.0], list(floors), averages, running_scale)


def walk(cell, values, state=None):
    """One call per observation, as a service steps it: outputs (n, D) and the states after each."""
    state = cell.get_initial_state(batch_size=1) if state is None else state
    outputs, states = [], []
    for row in values:
        y, state = cell(row[None], state)
        outputs.append(np.asarray(y)[0])
        states.append([np.asarray(each) for each in state])
    return np.stack(outputs), states


def series(n=60):
    return np.cumsum(RNG.normal(size=(n, 2)), axis=0).astype(np.float32) + np.float32(5)


def test_a_first_step_shows_no_change_whatever_the_level():
    for value in (0.0, -40.0, 1016.0):
        y, _ = cell()(np.full((1, 2), value, np.float32), cell().get_initial_state(batch_size=1))
        y = np.asarray(y)[0]
        assert y[:2] == pytest.approx([(value - 1) / 3, (value - 2) / 5], rel=1e-6)
        assert y[2:8].tolist() == [0] * 6
        assert y[8:] == pytest.approx([0, 0], abs=1e-5)


def test_changes_and_averages_follow_their_closed_forms():
    values = series()
    outputs, _ = walk(cell(running_scale=None), values)
    assert outputs.shape == (60, 8)
    assert outputs[1:, 2:4] == pytest.approx(np.diff(values, axis=0) / [0.5, 2.0], rel=1e-4, abs=1e-4)
    mean = values[0].astype(np.float64)
    for row in range(60):
        mean = mean + (values[row] - mean) / 4.0
        assert outputs[row, 4:6] == pytest.approx((values[row] - mean) / [0.5, 2.0], rel=1e-4, abs=1e-4)


def test_the_running_scale_starts_at_one_and_takes_the_size_of_the_changes():
    values = np.zeros((400, 2), np.float32)
    values[1::2] = [1.0, 0.5]  # changes of 2 and of 0.25 training changes, every step
    outputs, _ = walk(cell(), values)
    assert outputs[0, 8:] == pytest.approx([0, 0], abs=1e-5)
    assert outputs[-1, 8:] == pytest.approx(np.log([2.0, 0.25]), abs=1e-3)
    assert np.abs(outputs[-1, 2:4]) == pytest.approx([1, 1], abs=1e-3)


def test_stepping_the_cell_is_the_layer_over_time():
    values = series()
    whole = keras.layers.RNN(cell(), return_sequences=True)(values[None])
    np.testing.assert_allclose(walk(cell(), values)[0], np.asarray(whole)[0], rtol=1e-6, atol=1e-6)


def test_no_output_moves_when_later_inputs_do():
    values = series()
    changed = values.copy()
    changed[30:] += 7
    a, b = walk(cell(), values)[0], walk(cell(), changed)[0]
    np.testing.assert_array_equal(a[:30], b[:30])
    assert (a[30:] != b[30:]).any()


def test_every_memory_fades_so_that_two_histories_become_one():
    recent = series(300)
    states = []
    for start in (-500.0, 900.0):
        before = walk(cell(), np.full((5, 2), start, np.float32) + series(5))[1][-1]
        states.append(walk(cell(), recent, [np.asarray(each) for each in before])[1][-1])
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_a_state_is_flat_and_as_large_as_the_cell_says():
    each = cell()
    assert each.state_size == [2, 1, 2, 2, 2]
    assert [state.shape for state in each.get_initial_state(batch_size=3)] == [(3, size) for size in each.state_size]
    assert each.output_size == walk(each, series(1))[0].shape[1]


def test_the_logarithm_is_taken_inside_and_zero_counts_as_the_floor():
    each = PrepareCell([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.05, None])
    outputs, _ = walk(each, np.array([[0.0, -3.0], [1.0, 4.0], [0.01, 0.0]], np.float32))
    assert outputs[:, 0] == pytest.approx([np.log(0.05), 0, np.log(0.05)], abs=1e-6)
    assert outputs[:, 1].tolist() == [-3, 4, 0]
    assert np.isfinite(outputs).all()


def test_a_cell_survives_saving():
    each = cell(floors=(0.1, None))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(each))
    values = np.abs(series())
    np.testing.assert_array_equal(walk(each, values)[0], walk(again, values)[0])


def test_standardising_is_affine_and_remembers_nothing():
    layer = Standardise([1.0, 2.0], [3.0, 5.0], [None, None])
    values = series()
    assert np.asarray(layer(values[None]))[0] == pytest.approx((values - [1, 2]) / [3, 5], abs=1e-5)


@pytest.mark.parametrize(("which", "shape", "keep"), [("lstm", (128,), 32), ("gru", (2, 96), 0)])
def test_chrono_biases_ask_for_memories_up_to_the_lag(which, shape, keep):
    bias = np.asarray(ChronoBias(100, which)(shape))
    row = bias if bias.ndim == 1 else bias[0]
    memories = 1 + np.exp(row[keep : keep + 32])  # 1 / (1 - sigmoid(bias))
    assert memories.min() >= 2
    assert memories.max() <= 100
    assert memories.mean() == pytest.approx(51, abs=20)
    if which == "lstm":
        np.testing.assert_array_equal(row[:32], -row[32:64])
        assert (row[64:] == 0).all()
    else:
        assert (bias[0, 32:] == 0).all()
        assert (bias[1] == 0).all()


def test_chrono_biases_are_only_for_gates_they_know():
    with pytest.raises(ValueError, match="simple_rnn"):
        ChronoBias(100, "simple_rnn")
    with pytest.raises(ValueError, match="at least 3"):
        ChronoBias(2, "lstm")


@pytest.mark.parametrize("quantiles", [1, 2, 3, 5, 8])
def test_quantiles_never_cross_whatever_the_network_says(quantiles):
    head = Forecast([1, 0], [0.5, 2.0], [None, 0.1], quantiles)
    h = RNG.normal(0, 4, (4, 50, 2 * (1 + quantiles))).astype(np.float32)
    y = np.asarray(head([h, RNG.uniform(0, 5, (4, 50, 2)).astype(np.float32)]))
    assert y.shape == (4, 50, 2, 1 + quantiles)
    assert (np.diff(y[..., 1:], axis=-1) >= 0).all()


def test_a_silent_network_forecasts_the_last_value_of_each_target():
    head = Forecast([2, 0], [1.0, 1.0, 1.0], [None, None, 0.05], 0)
    y = np.asarray(head([np.zeros((1, 2, 2), np.float32), np.array([[[3, 4, 5], [6, 7, 0]]], np.float32)]))
    assert y[0, :, :, 0] == pytest.approx(np.array([[5, 3], [0.05, 6]]), rel=1e-6)


def test_changes_are_in_units_of_the_training_changes_and_of_the_running_scale():
    head = Forecast([0], [0.5], [None], 0, running_scale=True)
    seen = np.array([[[9.0, np.log(3.0)]]], np.float32)
    y = np.asarray(head([np.full((1, 1, 1), 2.0, np.float32), np.full((1, 1, 1), 10.0, np.float32), seen]))
    assert y.item() == pytest.approx(10 + 2 * 0.5 * 3)


def test_the_spread_widens_the_interval_about_the_middle_quantile():
    head = Forecast([0], [1.0], [None], 3)
    inputs = [RNG.normal(size=(1, 5, 4)).astype(np.float32), np.zeros((1, 5, 1), np.float32)]
    narrow = np.asarray(head(inputs))
    head.spread.assign([2.0])
    wide = np.asarray(head(inputs))
    np.testing.assert_allclose(wide[..., 2], narrow[..., 2], rtol=1e-6)
    np.testing.assert_allclose(wide[..., 3] - wide[..., 1], 2 * (narrow[..., 3] - narrow[..., 1]), rtol=1e-5)
    np.testing.assert_array_equal(wide[..., 0], narrow[..., 0])
