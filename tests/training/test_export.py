"""A bundle on disk: what its signatures answer, that it needs none of our code, and what is refused."""

import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from rich.console import Console

from models.manifest import MANIFEST, STEP_TFLITE, Feature, Target, read_manifest
from models.repository import Repository
from tests.training.bundles import make_tiny_bundle, make_tiny_model
from tests.training.zoo import TAKEN, VACUOUS, Counting, model, walk_like
from training import export as exporting
from training.export import export
from training.fingerprint import fingerprint
from training.proofs import TOLERANCE, Probe, worst
from training.refusals import ExportRefused, TrainingError, brief
from training.stepping import LiteStepper, SavedModelStepper, open_stepper
from training.tflite import Disagreement, accept, check_agreement
from training.userfile import Description, load_model, publish_model
from training.walk import Walk


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny bundle, its Keras model and its manifest."""
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    manifest = make_tiny_bundle(folder, residuals=False)
    return folder, make_tiny_model(), manifest


def test_every_signature_answers_as_the_keras_model_does(tiny):
    folder, built, manifest = tiny
    loaded = tf.saved_model.load(str(folder))
    call = loaded.signatures
    assert set(call) == {"serving_default", "step", "sequence", "gates"}
    x = walk_like(np.random.default_rng(1), 4, 30, 3)
    whole = built(x).numpy()
    fresh = tf.constant(np.tile(np.float32(manifest.initial_state), (4, 1)))
    scale = np.ones(3, np.float32)
    sequence = call["sequence"](x=tf.constant(x), state=fresh)
    assert worst(sequence["y"].numpy(), whole, scale) <= 1
    assert worst(call["serving_default"](x=tf.constant(x))["y"].numpy(), whole[:, -1], scale) <= 1
    state = fresh
    for t in range(30):
        out = call["step"](x=tf.constant(x[:, t]), state=state)
        state = out["state"]
        assert worst(out["y"].numpy(), whole[:, t], scale) <= 1
    np.testing.assert_allclose(state, sequence["state"], atol=1e-5)


def test_it_loads_in_a_process_that_has_neither_keras_nor_our_code(tiny, tmp_path):
    folder, _, _ = tiny
    code = f"""
import sys
import tensorflow as tf
loaded = tf.saved_model.load({str(folder)!r})
y = loaded.signatures["serving_default"](x=tf.zeros((2, 5, 3)))["y"]
print(tuple(y.shape), any(name.split(".")[0] in ("training", "models") for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 3, 4) False"


@pytest.mark.parametrize("batch", [1, 5, 32])
def test_litert_and_the_saved_model_agree_on_step_and_gates(tiny, batch):
    folder, _, manifest = tiny
    lite, whole = LiteStepper(folder / STEP_TFLITE), SavedModelStepper(folder)
    x = walk_like(np.random.default_rng(2), batch, 20, 3)
    a = b = np.tile(np.float32(manifest.initial_state), (batch, 1))
    for t in range(20):
        for name, values in whole.gates(x[:, t], b).items():
            np.testing.assert_allclose(lite.gates(x[:, t], a)[name], values, atol=1e-5)
        (y_a, a), (y_b, b) = lite.step(x[:, t], a), whole.step(x[:, t], b)
        assert worst(y_a, y_b, np.ones(3, np.float32)) <= 1


def test_the_manifest_describes_the_bundle(tiny):
    folder, _, manifest = tiny
    assert read_manifest(folder).fingerprint == manifest.fingerprint
    assert [(g.layer, g.cell, g.names, g.units) for g in manifest.gates] == [
        ("lower", "LSTM", ("i", "f", "c", "o"), 6),
        ("upper", "LSTM", ("i", "f", "c", "o"), 6),
    ]
    assert len(manifest.initial_state) == 24
    assert 1 <= manifest.context_length <= 512
    assert {"python", "tensorflow", "keras", "numpy", "ai-edge-litert"} <= set(manifest.libraries)
    assert manifest.residuals is None
    assert manifest.scores is None
    assert json.loads((folder / MANIFEST).read_text())["quantiles"] == [0.05, 0.5, 0.95]


def test_step_tflite_holds_the_weights(tiny):
    folder, built, _ = tiny
    assert (folder / STEP_TFLITE).stat().st_size > 4 * built.count_params()


def test_the_fingerprint_is_of_weights_and_graph_not_of_names_or_runs():
    first, again, other = make_tiny_model(), make_tiny_model(), make_tiny_model(seed=12)
    prints = [fingerprint(Walk(each)) for each in (first, again, other)]
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]
    automatic = [fingerprint(Walk(TAKEN["nested models"]())) for _ in range(2)]  # counted-up layer names differ
    assert automatic[0] == automatic[1]


def test_one_changed_weight_or_activation_changes_the_fingerprint():
    built = make_tiny_model()
    before = fingerprint(Walk(built))
    weight = built.get_layer("upper").cell.recurrent_kernel
    value = weight.numpy()
    value[0, 0] = np.nextafter(value[0, 0], np.float32(9))
    weight.assign(value)
    assert fingerprint(Walk(built)) != before
    plain = [model(lambda x, a=a: layers.Dense(2, activation=a)(x)) for a in ("tanh", "relu")]
    assert fingerprint(Walk(plain[0])) != fingerprint(Walk(plain[1]))


def test_a_user_model_that_answers_the_last_step_alone_is_the_point_forecast(tmp_path):
    built = TAKEN["last step alone"]()
    manifest = export(built, tmp_path / "b", name="lab", features=_features(2), targets=_targets(2))
    loaded = tf.saved_model.load(str(tmp_path / "b"))
    x = walk_like(np.random.default_rng(3), 2, 9)
    y = loaded.signatures["serving_default"](x=tf.constant(x))["y"].numpy()
    assert y.shape == (2, 2, 1)
    np.testing.assert_allclose(y[..., 0], built(x), atol=1e-5)
    fresh = tf.constant(np.tile(np.float32(manifest.initial_state), (2, 1)))
    along = loaded.signatures["sequence"](x=tf.constant(x), state=fresh)["y"].numpy()
    np.testing.assert_allclose(along[:, 4, :, 0], built(x[:, :5]), atol=1e-5)


def test_a_model_with_time_distributed_layers_is_a_bundle_too(tmp_path):
    def build(x):
        two = layers.TimeDistributed(layers.Reshape((2, 1)))(x)  # each step a small image of its own
        two = layers.TimeDistributed(layers.Conv1D(3, 2, activation="tanh"))(two)
        flat = layers.TimeDistributed(layers.Flatten())(two)
        return layers.TimeDistributed(layers.Dense(2))(layers.LSTM(3, return_sequences=True)(flat))

    built = model(build)
    manifest = export(built, tmp_path, name="lab", features=_features(2), targets=_targets(2))
    x = walk_like(np.random.default_rng(4), 3, 7)
    fresh = np.tile(np.float32(manifest.initial_state), (3, 1))
    call = tf.saved_model.load(str(tmp_path)).signatures
    y = call["sequence"](x=tf.constant(x), state=tf.constant(fresh))["y"].numpy()[..., 0]
    np.testing.assert_allclose(y, built(x), atol=1e-5)
    stepper = open_stepper(tmp_path)
    assert isinstance(stepper, LiteStepper)
    np.testing.assert_allclose(stepper.step(x[:, 0], fresh)[0][..., 0], y[:, 0], atol=1e-5)


def test_a_model_without_memory_or_gates_is_a_bundle_too(tmp_path):
    manifest = export(TAKEN["no memory"](), tmp_path, name="flat", features=_features(2), targets=_targets(2))
    stepper = open_stepper(tmp_path)
    y, state = stepper.step(np.ones((3, 2), np.float32), np.zeros((3, 1), np.float32))
    assert isinstance(stepper, LiteStepper)
    assert (y.shape, state.shape, manifest.gates) == ((3, 2, 1), (3, 1), ())
    assert stepper.gates(np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32)) == {}


def test_without_agreement_there_is_no_step_tflite_and_that_is_said(tmp_path, monkeypatch):
    other = tmp_path / "other.tflite"
    make_tiny_bundle(tmp_path / "a", n_features=1, seed=5, residuals=False)
    other.write_bytes((tmp_path / "a" / STEP_TFLITE).read_bytes())
    monkeypatch.setattr(exporting, "compile_step", lambda *_: other.read_bytes())  # weights of another model
    said = []
    built = make_tiny_model(1, seed=6)
    export(built, tmp_path / "b", name="t", features=_features(1), targets=_targets(1), quantiles=(0.1, 0.5, 0.9),
           say=said.append)  # fmt: skip
    assert not (tmp_path / "b" / STEP_TFLITE).exists()
    assert any("No step.tflite" in each and "off by" in each for each in said)
    assert isinstance(open_stepper(tmp_path / "b"), SavedModelStepper)


def test_litert_is_accepted_within_tolerance_and_only_if_the_difference_does_not_grow():
    flat = np.full(2_000, 0.3)
    assert accept(flat, 1) == pytest.approx(0.3)
    assert accept(np.linspace(0, 0.05, 2_000), 1) == pytest.approx(0.05)  # growing, but not worth mentioning
    with pytest.raises(Disagreement, match="grows"):
        accept(np.linspace(0, 0.9, 2_000) ** 2, 32)
    with pytest.raises(Disagreement, match="step 1501"):
        accept(np.where(np.arange(2_000) == 1_500, 1.5, flat), 1)
    with pytest.raises(Disagreement):
        accept(np.where(np.arange(2_000) == 3, np.inf, flat), 1)


def test_litert_has_to_answer_a_series_in_a_batch_as_it_does_alone(tiny, monkeypatch):
    folder, _, manifest = tiny
    scale = np.ones(3, np.float32)

    class Uneven(LiteStepper):
        """Within the tolerance of the SavedModel at every batch, but not of itself."""

        def step(self, x, state):
            y, state = super().step(x, state)
            return y + 0.7 * TOLERANCE * np.maximum(1, np.abs(y)) * (1 if len(x) == 1 else -1), state

    args = (folder / STEP_TFLITE, folder, Probe(3), np.float32(manifest.initial_state), scale)
    assert check_agreement(*args) < 1
    monkeypatch.setattr("training.tflite.LiteStepper", Uneven)
    with pytest.raises(Disagreement, match="otherwise than alone"):
        check_agreement(*args)


@pytest.mark.parametrize(
    ("features", "targets", "quantiles", "reason"),
    [(2, 3, (), "answers"), (2, 2, (0.1, 0.9), "answers"), (3, 2, (), "takes 2 features")],
)
def test_a_description_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path, features, targets, quantiles, reason
):
    folder = tmp_path / "none"
    with pytest.raises(ExportRefused, match=reason):
        export(TAKEN["GRU"](), folder, name="x", features=_features(features), targets=_targets(targets),
               quantiles=quantiles)  # fmt: skip
    assert not folder.exists()


def test_values_that_are_not_finite_are_refused_with_a_hint(tmp_path):
    built = model(lambda x: layers.Dense(2)(keras.ops.log(x)))
    with pytest.raises(ExportRefused, match=r"not finite.*--data"):
        export(built, tmp_path / "none", name="x", features=_features(2), targets=_targets(2))


def test_a_variable_that_changes_while_the_model_answers_is_refused(tmp_path):
    built = model(lambda x: layers.Dense(2)(Counting(name="tally")(x)))
    with pytest.raises(ExportRefused, match="all clients would share") as refused:
        export(built, tmp_path / "none", name="x", features=_features(2), targets=_targets(2))
    assert refused.value.layer == "tally"


def test_a_model_deaf_to_random_series_is_refused_without_data_and_judged_by_it_with(tmp_path):
    description = {"name": "x", "features": _features(2), "targets": _targets(2)}
    with pytest.raises(ExportRefused, match=r"does not react.*--data"):
        export(VACUOUS["saturated"](), tmp_path / "none", unscaled=["x0", "x1"], **description)
    data = np.random.default_rng(5).normal(1e3, 3, (900, 2)).astype(np.float32)
    with pytest.raises(ExportRefused, match="reads the future"):
        export(VACUOUS["saturated"](), tmp_path / "none", data=[data], **description)


def test_where_no_data_gives_a_scale_it_is_that_of_the_answers(tmp_path):
    description = {"name": "x", "features": _features(2), "unscaled": ["x0", "x1"], "targets": _targets(2)}
    with pytest.raises(ExportRefused, match="reads the future"):  # seen, although every answer is near 1e-6
        export(VACUOUS["tiny"](), tmp_path / "none", **description)
    small = model(lambda x: 1e-3 * layers.Dense(2)(x))
    manifest = export(small, tmp_path / "small", **description)
    x = walk_like(np.random.default_rng(6), 16, 200)
    for target, spread in zip(manifest.targets, np.asarray(small(x)).std(axis=(0, 1)), strict=True):
        assert 0.3 * spread < target.scale < 3 * spread


def test_a_slow_memory_is_refused_or_marked(tmp_path):
    @keras.saving.register_keras_serializable(package="zoo")
    class Sum(layers.Layer):
        state_size = output_size = 2

        def call(self, inputs, states):
            level = 0.999 * states[0] + 0.05 * inputs
            return level, [level]

    slow = model(lambda x: layers.RNN(Sum(), return_sequences=True)(x))
    description = {"name": "x", "features": _features(2), "targets": _targets(2)}
    with pytest.raises(ExportRefused, match="--allow-slow-fading"):
        export(slow, tmp_path / "none", **description)
    manifest = export(slow, tmp_path / "slow", allow_slow_fading=True, **description)
    assert (manifest.slow_fading, read_manifest(tmp_path / "slow").context_length) == (True, 512)


@pytest.mark.parametrize(
    ("build", "quantiles", "reason"),
    [
        (lambda x: [layers.Dense(2)(x), layers.Dense(2)(x)], (), "2 outputs"),
        (lambda x: layers.Dense(2)(x), (0.5,), "targets, 1 [+] quantiles"),
        (lambda x: layers.Dense(2)(layers.LSTM(3)(x)), (0.5,), "targets, 1 [+] quantiles"),
    ],
)
def test_a_file_whose_outputs_do_not_fit_is_refused_by_what_it_answers(tmp_path, build, quantiles, reason):
    file = tmp_path / "my.keras"
    model(build).save(file)
    console, repository = Console(file=io.StringIO()), Repository(tmp_path / "models")
    with pytest.raises(ExportRefused, match=reason):
        publish_model(file, Description("lab", quantiles=quantiles), repository, console)


def test_a_file_that_is_damaged_is_said_to_be_unreadable(tmp_path):
    file = tmp_path / "my.keras"
    model(lambda x: layers.Dense(2)(x)).save(file)
    content = bytearray(file.read_bytes())
    at = content.index(b"config.json") + 40  # inside the description of the layers, where the checksum tells
    content[at : at + 8] = b"damaged!"
    file.write_bytes(content)
    with pytest.raises(TrainingError, match="can be loaded"):
        load_model(file)


def test_an_error_is_shown_by_its_first_telling_line_without_terminal_codes():
    error = ValueError("Exception encountered when calling X.call().\n\n\x1b[1mshapes differ\x1b[0m\n\nArguments")
    assert brief(error) == "shapes differ"


def _features(n):
    return [Feature(name=f"x{i}") for i in range(n)]


def _targets(n):
    return [Target(name=f"x{i}", scale=1.0) for i in range(n)]
