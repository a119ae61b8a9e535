"""The numeric proofs: what no list of layers can see is caught, and named."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.training.zoo import CAUGHT, MIXING, TAKEN, Peek, model
from training import proofs
from training.proofs import Probe, measure_fading, prove_causal, prove_independent, prove_stepping, worst
from training.refusals import ExportRefused
from training.stepped import Stepped

SCALE = np.ones(2, np.float32)


def _prove(built):
    stepped, probe = Stepped(built, 2, 0), Probe(2)
    prove_causal(stepped, probe, SCALE)
    return prove_stepping(stepped, probe, SCALE)


@pytest.mark.parametrize("kind", CAUGHT)
def test_what_works_over_time_is_caught_by_number_and_named(kind):
    build, layer = CAUGHT[kind]
    with pytest.raises(ExportRefused) as refused:
        _prove(build())
    assert layer in refused.value.layer
    assert "reads the future" in str(refused.value) or "over the time axis" in str(refused.value)


def test_a_graph_that_fails_on_one_observation_is_refused_by_its_layer():
    third = model(lambda x: layers.Dense(2)(layers.LSTM(3)(x)) + x[:, 2])
    with pytest.raises(ExportRefused, match="one step too") as refused:
        prove_independent(Stepped(third, 2, 0), Probe(2), SCALE)
    assert refused.value.layer.startswith("get_item")


@pytest.mark.parametrize("kind", MIXING)
def test_what_mixes_the_clients_of_a_batch_is_caught_and_named(kind):
    build, layer = MIXING[kind]
    with pytest.raises(ExportRefused, match="mixes clients") as refused:
        prove_independent(Stepped(build(), 2, 0), Probe(2), SCALE)
    assert layer in refused.value.layer


@pytest.mark.parametrize("kind", ["two LSTMs", "last step alone", "stacked cells"])
def test_clients_that_share_a_batch_do_not_touch_each_other(kind):
    prove_independent(Stepped(TAKEN[kind](), 2, 0), Probe(2), SCALE)


@pytest.mark.parametrize("kind", ["two LSTMs", "last step alone"])
def test_a_causal_model_passes_at_every_length(kind):
    assert _prove(TAKEN[kind]()) < 1


def test_a_culprit_behind_good_layers_is_found_among_them():
    built = model(lambda x: layers.Dense(2)(Peek(name="peek")(layers.LSTM(3, return_sequences=True)(x))))
    with pytest.raises(ExportRefused) as refused:
        prove_causal(Stepped(built, 2, 0), Probe(2), SCALE)
    assert refused.value.layer == "peek"


def test_promise_one_measures_against_value_or_scale_whichever_is_larger():
    reference = np.array([[[0.0], [1000.0]]], np.float32)
    answer = np.array([[[2e-5], [1000.02]]], np.float32)
    assert worst(answer, reference, np.array([2.0, 1.0], np.float32)) == pytest.approx(2.0, rel=0.02)
    assert worst(np.full((1, 2, 1), np.nan), reference, SCALE) == np.inf


def test_a_short_memory_needs_the_least_context_and_a_long_one_more():
    forgetful = model(lambda x: layers.Dense(2)(layers.GRU(3, return_sequences=True)(x)))
    assert measure_fading(Stepped(forgetful, 2, 0), Probe(2), SCALE) == proofs.MIN_CONTEXT
    slow = model(lambda x: layers.RNN(Leak(0.98), return_sequences=True)(x))
    # two states 1 % of scale apart: .98^n |difference| <= .01, the difference up to about 3
    assert 150 < measure_fading(Stepped(slow, 2, 0), Probe(2), SCALE) < 400


def test_a_memory_that_never_fades_is_measured_as_none():
    counts = model(lambda x: layers.RNN(Leak(1.0), return_sequences=True)(x))
    assert measure_fading(Stepped(counts, 2, 0), Probe(2), SCALE) is None


def test_probes_look_like_the_data_and_keep_its_range():
    rng = np.random.default_rng(5)
    data = np.stack([1000 + np.cumsum(rng.normal(0, 0.1, 4000)), rng.uniform(0, 1, 4000)], 1).astype(np.float32)
    x = Probe(2, data=[data]).random(8, 400)
    assert (x.min(axis=(0, 1)) >= data.min(0)).all()
    assert (x.max(axis=(0, 1)) <= data.max(0)).all()
    steps = np.abs(np.diff(x, axis=1)).mean(axis=(0, 1)) / np.abs(np.diff(data, axis=0)).mean(0)
    assert (steps > 0.3).all()
    assert (steps < 3).all()


def test_probes_without_data_keep_the_limits():
    x = Probe(2, [(0.0, None), (-90.0, 60.0)]).random(4, 200)
    assert x[..., 0].min() >= 0
    assert np.abs(x[..., 1] + 15).max() <= 75
    assert x[..., 1].std() > 5


def test_real_slices_come_from_series_that_are_long_enough():
    short, long = np.zeros((10, 1), np.float32), np.arange(100, dtype=np.float32)[:, None]
    probe = Probe(1, data=[short, long])
    np.testing.assert_array_equal(np.diff(probe.real(2, 50), axis=1), 1.0)
    assert probe.real(2, 101) is None


@keras.saving.register_keras_serializable(package="zoo")
class Leak(layers.Layer):
    """s' = keep s + (1 - keep) x, or a plain sum for keep = 1."""

    def __init__(self, keep, **kwargs):
        super().__init__(**kwargs)
        self.keep, self.state_size, self.output_size = keep, 2, 2

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, 2))]

    def call(self, inputs, states):
        level = self.keep * states[0] + (1 - self.keep or 1.0) * inputs
        return level, [level]

    def get_config(self):
        return {**super().get_config(), "keep": self.keep}
