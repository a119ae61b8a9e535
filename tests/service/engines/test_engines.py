"""Both engines step alike: any batch, any thread, and refuse a bundle that is not what its manifest says."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from models.manifest import STEP_TFLITE
from models.repository import Repository
from service.core.errors import BundleInvalid
from service.engines import open_engine
from service.specs import spec_of


@pytest.fixture(scope="module")
def bundle(tiny_repository):
    return Repository(tiny_repository).bundle("tiny", 1)


@pytest.fixture(scope="module")
def spec(tiny_repository):
    return spec_of(Repository(tiny_repository).verify("tiny", 1), 1)


@pytest.fixture(scope="module", params=["litert", "tensorflow"])
def engine(request, bundle, spec):
    return open_engine(bundle, spec, request.param)


def inputs(spec, batch, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal([10, 5, 1010], [9, 7, 8], (batch, 3)).astype(np.float32)
    state = np.tanh(rng.normal(size=(batch, spec.initial_state.size))).astype(np.float32)
    return x, state


def close(a, b):
    return np.abs(a - b).max() <= 1e-5 * np.maximum(np.abs(b), 1.0).max()


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 31, 32, 33, 100])
def test_a_batch_is_as_many_single_steps(engine, spec, batch):
    x, state = inputs(spec, batch)
    y, following = engine.step(x, state)
    assert (y.shape, following.shape) == ((batch, 3, 4), state.shape)
    for i in range(batch):
        one_y, one_following = engine.step(x[i : i + 1], state[i : i + 1])
        assert close(y[i], one_y[0])
        assert close(following[i], one_following[0])


def test_the_engines_agree(bundle, spec):
    x, state = inputs(spec, 50)
    (y, following), (other_y, other_following) = (
        open_engine(bundle, spec, kind).step(x, state) for kind in ("litert", "tensorflow")
    )
    assert close(y, other_y)
    assert close(following, other_following)


def test_what_a_step_returns_is_not_overwritten_by_the_next(engine, spec):
    x, state = inputs(spec, 2)
    y, following = engine.step(x[:1], state[:1])
    kept = y.copy(), following.copy()
    engine.step(x[1:], state[1:])
    assert (y.tolist(), following.tolist()) == (kept[0].tolist(), kept[1].tolist())


def test_threads_do_not_disturb_each_other(engine, spec):
    x, state = inputs(spec, 8)
    expected = [engine.step(x[i : i + 1], state[i : i + 1])[0] for i in range(8)]
    wrong = []

    def run(i):
        same = [np.array_equal(engine.step(x[i : i + 1], state[i : i + 1])[0], expected[i]) for _ in range(200)]
        wrong.extend([i] * same.count(False))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_gates_have_the_manifests_layout_and_agree(bundle, spec):
    x, state = inputs(spec, 1)
    layers = open_engine(bundle, spec, "litert").gates(x, state)
    assert [layer.shape for layer in layers] == [(1, len(g.names) * g.units) for g in spec.gates]
    assert len(layers) == 2
    for layer, other in zip(layers, open_engine(bundle, spec, "tensorflow").gates(x, state), strict=True):
        assert close(layer, other)


def test_lstm_gates_make_the_next_cell_state(engine, spec):
    """c' = f c + i g, read off the lower layer's own gates: they are what the cell computes, in a known order."""
    x, state = inputs(spec, 1)
    gate = spec.gates[0]
    named = dict(zip(gate.names, engine.gates(x, state)[0].reshape(len(gate.names), gate.units), strict=True))
    _, following = engine.step(x, state)
    i, f, g, o = (named[name] for name in "ifco")
    h, c, c_before = following[0, :6], following[0, 6:12], state[0, 6:12]
    assert close(c, f * c_before + i * g)
    assert close(h, o * np.tanh(c))


def test_auto_takes_litert_where_the_bundle_has_it_and_tensorflow_otherwise(bundle, spec, tmp_path):
    assert type(open_engine(bundle, spec)).__name__ == "LiteRTEngine"
    bare = shutil.copytree(bundle, tmp_path / "bare")
    (bare / STEP_TFLITE).unlink()
    assert type(open_engine(bare, spec)).__name__ == "TensorFlowEngine"


@pytest.mark.parametrize("content", [None, b"", b"not a model", "half"])
def test_a_damaged_graph_is_refused_by_name(bundle, spec, tmp_path, content):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    tflite = copy / STEP_TFLITE
    whole = tflite.read_bytes()
    tflite.unlink()
    if content is not None:
        tflite.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(BundleInvalid, match="tiny 1"):
        open_engine(copy, spec, "litert")


def test_a_graph_of_other_shapes_than_the_manifest_is_refused(bundle, spec):
    with pytest.raises(BundleInvalid, match="manifest"):
        open_engine(bundle, replace(spec, quantiles=(0.5,)), "litert")
