"""The walk: stepping is the offline pass for every model it takes, and what it can't take it names."""

import keras
import numpy as np
import pytest

from tests.training.zoo import REFUSED, TAKEN, model, walk_like
from training.refusals import ExportRefused
from training.walk import Walk


@pytest.mark.parametrize("kind", TAKEN)
def test_stepping_equals_the_offline_pass(kind):
    built = TAKEN[kind]()
    walk = Walk(built)
    x = walk_like(np.random.default_rng(1), 3, 8)
    whole = np.asarray(built(x))
    state = np.tile(walk.initial_state, (3, 1))
    for t in range(8):
        y, state = walk.step(x[:, t], state)
        y = np.asarray(y)
        if whole.ndim == 3:
            np.testing.assert_allclose(y[:, 0], whole[:, t], rtol=1e-5, atol=1e-6)
    if whole.ndim == 2:
        np.testing.assert_allclose(y, whole, rtol=1e-5, atol=1e-6)
    assert state.shape == (3, walk.width)


@pytest.mark.parametrize(
    "kind", [k for k in TAKEN if k not in ("last step alone", "sliced last step", "states as outputs")]
)
def test_a_sequence_in_two_chunks_equals_the_offline_pass(kind):
    built = TAKEN[kind]()
    walk = Walk(built)
    x = walk_like(np.random.default_rng(2), 2, 8)
    first, state = walk.sequence(x[:, :3], np.tile(walk.initial_state, (2, 1)))
    second, _ = walk.sequence(x[:, 3:], state)
    chunked = np.concatenate([first, second], axis=1)
    np.testing.assert_allclose(chunked, np.asarray(built(x)), rtol=1e-5, atol=1e-6)


def test_a_sequence_leaves_the_layers_as_they_were():
    built = TAKEN["two LSTMs"]()
    walk = Walk(built)
    walk.sequence(np.zeros((1, 2, 2), np.float32), walk.initial_state[None])
    assert not any(layer.return_state for layer in built.layers if isinstance(layer, keras.layers.RNN))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_stepped_is_refused_by_layer_and_reason(kind):
    build, layer, reason = REFUSED[kind]
    with pytest.raises(ExportRefused, match=reason) as refused:
        Walk(build())
    assert layer in refused.value.layer


def test_state_belongs_to_nodes_and_its_layout_is_the_walking_order():
    walk = Walk(TAKEN["stacked cells"]())
    (slot,) = walk.slots.values()
    assert slot.sizes == (3, 3, 4, 4, 2, 2)  # h and c, h, the level, h and c
    assert walk.width == 18
    np.testing.assert_array_equal(walk.initial_state[10:14], 5.0)


def test_nested_state_carries_the_path_of_its_models():
    assert list(Walk(TAKEN["nested models"]()).slots) == ["middle/inner/deep"]


def test_a_model_without_memory_carries_one_idle_float():
    walk = Walk(TAKEN["no memory"]())
    _, state = walk.step(np.ones((2, 2), np.float32), np.zeros((2, 1), np.float32))
    assert walk.width == 1
    np.testing.assert_array_equal(state, 0.0)


def test_only_calls_outside_the_allow_list_need_the_proofs_alone():
    assert Walk(TAKEN["everything stateless"]()).unlisted == []
    (unlisted,) = Walk(TAKEN["sliced last step"]()).unlisted
    assert unlisted.startswith("get_item")


def test_lstm_gates_are_those_that_make_its_next_state():
    walk = Walk(model(lambda x: keras.layers.LSTM(4, return_sequences=True, name="memory")(x)))
    rng = np.random.default_rng(3)
    x, state = rng.normal(size=(5, 2)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    (described,) = walk.gate_outputs["memory"]
    assert (described.names, described.units, described.cell) == (("i", "f", "c", "o"), 4, "LSTM")
    i, f, c, o = np.split(np.asarray(walk.gates(x, state)[described.output]), 4, axis=1)
    cell = f * state[:, 4:] + i * c
    np.testing.assert_allclose(walk.step(x, state)[1], np.concatenate([o * np.tanh(cell), cell], 1), atol=1e-6)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_gates_are_those_that_make_its_next_state(reset_after):
    walk = Walk(model(lambda x: keras.layers.GRU(4, reset_after=reset_after, return_sequences=True, name="memory")(x)))
    rng = np.random.default_rng(4)
    x, state = rng.normal(size=(5, 2)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    z, _, h = np.split(np.asarray(walk.gates(x, state)["gates_0"]), 3, axis=1)
    assert walk.gate_outputs["memory"][0].names == ("z", "r", "h")
    np.testing.assert_allclose(walk.step(x, state)[1], z * state + (1 - z) * h, atol=1e-6)


def test_gates_of_stacked_cells_are_told_apart_and_foreign_cells_have_none():
    walk = Walk(TAKEN["stacked cells"]())
    (outputs,) = walk.gate_outputs.values()
    assert [output.cell for output in outputs] == ["LSTM", "GRU", "LSTM"]
    found = walk.gates(np.ones((2, 2), np.float32), np.tile(walk.initial_state, (2, 1)))
    assert [found[output.output].shape for output in outputs] == [(2, 12), (2, 12), (2, 8)]
    assert Walk(TAKEN["own cell, not from zero"]()).gates(np.ones((1, 2), np.float32), np.full((1, 2), 5.0)) == {}
