"""Fitting: deterministic, blind to what it may not see, and better for it."""

import io
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from training.carried import Carried
from training.fit import Diverged, Trainer, _optimizer, fit
from training.job import Fit, Job
from training.losses import Loss
from training.networks import build_network
from training.sources import Series
from training.streams import prepared, training_batch, validation_batch

N = 600


def job(architecture="lstm", quick=None, network=None, log=False, **settings):
    return Job.model_validate(
        {
            "name": "wave",
            "source": {"path": "wave.csv"},
            "architecture": architecture,
            "features": [{"name": "height", "unit": "m", "log": log, "floor": 0.1 if log else None}],
            "targets": [{"name": "height"}],
            "network": {"units": 6, "depth": 1, **(network or {})},
            "fit": {"streams": 4, "chunk": 16, "epochs": 3, "learning_rate": 0.02, **settings},
            "quick": quick or {},
        }
    )


def wave(key="a", seed=0, n=N):
    """A rising, falling tide with noise: the last value is a poor forecast, the one before it helps."""
    time = np.arange(n)
    values = 50 + 10 * np.sin(time / 3) + np.random.default_rng(seed).normal(0, 0.3, n)
    return Series(key, time * 60.0, values.astype(np.float32)[:, None])


def weights(fitted):
    return [each.numpy() for each in fitted.model.weights]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def fitted():
    return fit(job(), [wave()])


def test_two_fits_with_one_seed_are_equal_to_the_bit(fitted):
    again = fit(job(), [wave()])
    assert same(weights(fitted), weights(again))
    assert [epoch.loss for epoch in again.history] == [epoch.loss for epoch in fitted.history]
    assert not same(weights(fitted), weights(fit(job(seed=2), [wave()])))


MEET = """
from training.quiet import import_frameworks
import_frameworks()
import threading
import numpy as np
import tensorflow as tf
both = threading.Barrier(2)

def meet(which):
    try:
        both.wait(3)
    except threading.BrokenBarrierError:
        return np.int64(0)
    return np.int64(1)

@tf.function
def two_operations(x):
    return [tf.numpy_function(meet, [x + i], tf.int64, stateful=False) for i in range(2)]

print(sum(int(each) for each in two_operations(tf.constant(0))))
"""


def test_operations_run_one_at_a_time_so_that_sums_are_always_added_in_the_same_order():
    environment = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTEROP_THREADS"}
    done = subprocess.run([sys.executable, "-c", MEET], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_the_test_part_moves_no_weight_and_no_statistic(fitted):
    series = wave()
    series.values[int(N * 0.8) :] *= 100
    assert same(weights(fitted), weights(fit(job(), [series])))


def test_the_validation_part_moves_no_statistic_and_no_update():
    series = wave()
    series.values[int(N * 0.7) : int(N * 0.8)] *= 100
    a, b = fit(job(epochs=1), [wave()]), fit(job(epochs=1), [series])
    known = [
        (each.means, each.deviations, each.changes) for each in (x.model.get_layer("prepare").cell for x in (a, b))
    ]
    assert known[0] == known[1]
    assert a.model.get_layer("forecast").changes == b.model.get_layer("forecast").changes
    assert a.history[0].loss == b.history[0].loss
    assert a.history[0].validation != b.history[0].validation
    assert same(
        [each.numpy() for each in a.model.trainable_weights], [each.numpy() for each in b.model.trainable_weights]
    )


@pytest.mark.parametrize("architecture", ["lstm", "gru", "simple_rnn"])
def test_a_fitted_network_beats_the_last_value(architecture):
    series = wave()
    model = fit(job(architecture, epochs=12), [series]).model
    start = int(N * 0.8)
    before = start - 41
    y = np.asarray(model(series.values[None, before:]))[0, 40:-1, 0]
    truth = series.values[start:, 0]
    last = series.values[start - 1 : -1, 0]
    assert np.sqrt(np.mean((truth - y[:, 0]) ** 2)) < 0.5 * np.sqrt(np.mean((truth - last) ** 2))
    assert 0.75 < np.mean((y[:, 1] <= truth) & (truth <= y[:, 3])) <= 1


def test_the_weights_kept_are_those_of_the_best_epoch():
    settings = {"epochs": 6, "patience": 2, "learning_rate": 3.0, "clip": 100.0, "averaging": 0.0}
    fitted = fit(job(**settings), [wave()])
    losses = [epoch.validation for epoch in fitted.history]
    assert fitted.best == 1 + int(np.argmin(losses))
    series = wave()
    known = prepared(
        fitted.model, fitted.job, fitted.model.get_layer("forecast").changes, [series.values[: int(N * 0.8)]]
    )
    trainer = Trainer(fitted.job, fitted.model)
    fitted.model.get_layer("forecast").spread.assign([1.0])
    assert trainer.validate(validation_batch(known, [int(N * 0.7)])) == pytest.approx(min(losses), rel=1e-5)


def test_gradients_are_clipped_by_the_norm_of_all_of_them_together():
    gradients = [tf.constant([3.0]), tf.constant([[0.0], [4.0]])]
    optimizer = _optimizer(Fit(clip=0.5), updates=100)
    clipped = [each.numpy().ravel().tolist() for each in optimizer._clip_gradients(gradients)]
    assert clipped == [pytest.approx([0.3]), pytest.approx([0.0, 0.4])]


def test_training_stops_when_patience_is_out():
    fitted = fit(job(epochs=30, patience=2, learning_rate=3.0, clip=100.0, averaging=0.0), [wave()])
    assert len(fitted.history) == fitted.best + 2 < 30


def test_a_training_that_learnt_nothing_finite_says_so():
    with pytest.raises(Diverged, match="wave: the loss is not finite"):
        fit(job(learning_rate=1e30), [wave()])


def test_quick_applies_the_jobs_quick_tables():
    fitted = fit(job(quick={"fit": {"epochs": 1}}), [wave()], quick=True)
    assert len(fitted.history) == 1
    assert fitted.job.fit.epochs == 1


def test_several_series_train_one_network_and_their_lengths_may_differ():
    fitted = fit(job(epochs=1), [wave(), wave("b", 1, 200), wave("c", 2, 90)])
    assert np.isfinite(fitted.history[0].loss)


def test_progress_shows_one_task_that_ends_complete():
    progress = Progress(console=Console(file=io.StringIO()))
    fit(job(epochs=2), [wave()], progress=progress)
    (task,) = progress.tasks
    assert task.finished
    assert "loss" in task.description


@pytest.mark.parametrize("architecture", ["lstm", "gru", "simple_rnn", "feed_forward"])
@pytest.mark.parametrize(
    "network", [{"depth": 2}, {"averages": [5.0], "running_scale": 20.0, "lags": 4, "level": False}]
)
def test_a_carried_pass_over_chunks_is_the_network_over_the_series(architecture, network):
    if architecture == "feed_forward":
        network = {**network, "level": True}
    plan = job(architecture, network=network, log=True)
    values = wave(n=150).values
    model = build_network(plan, [values])
    head = model.get_layer("forecast")
    (known,) = prepared(model, plan, head.changes, [values])
    carried = Carried(model)
    state, parts = carried.fresh(1), []
    for start, stop in ((0, 1), (1, 25), (25, 149)):
        h, state = carried(known.seen[None, start:stop], state)
        parts.append(np.asarray(head.normal(h)))
    normal = np.concatenate(parts, axis=1)[0, :, 0]
    scale = head.changes[0] * (np.exp(known.seen[:, -1]) if plan.running_scale else 1)
    y = values[:-1] * np.exp(normal * np.reshape(scale, (-1, 1)))
    np.testing.assert_allclose(y, np.asarray(model(values[None]))[0, :-1, 0], rtol=2e-5)
    # and the change that training asks for is the one that leads to the next observation
    np.testing.assert_allclose(values[:-1, 0] * np.exp(known.change[:, 0] * scale), values[1:, 0], rtol=2e-5)


def test_every_step_of_every_series_counts_once_in_an_epoch():
    plan = job()
    model = build_network(plan, [wave().values])
    known = prepared(model, plan, [1.0], [wave().values, wave("b", 1, 130).values])
    random = np.random.default_rng(0)
    shapes = set()
    for _ in range(20):
        batch = training_batch(known, 4, 16, random)
        shapes.add(batch.seen.shape)
        counted = np.sort(batch.change[batch.counts > 0][:, 0])
        np.testing.assert_array_equal(counted, np.sort(np.concatenate([each.change[:, 0] for each in known])))
    assert len(shapes) == 1
    assert batch.seen.shape[1] % 16 == 0


def test_validation_counts_its_own_steps_and_warms_up_on_those_before():
    plan = job()
    known = prepared(build_network(plan, [wave().values]), plan, [1.0], [wave().values])
    batch = validation_batch(known, [400], pieces=3)
    assert batch.counts.sum() == N - 1 - 400
    assert batch.counts[0, :96].sum() == 0
    np.testing.assert_array_equal(batch.seen[0, :96], known[0].seen[304:400])


def test_calibration_makes_the_interval_cover_its_share_of_the_validation_steps():
    plan = job()
    model = build_network(plan, [wave().values])
    known = prepared(model, plan, model.get_layer("forecast").changes, [wave().values])
    batch = validation_batch(known, [100])
    trainer = Trainer(plan, model)
    (spread,) = trainer.calibrate(batch)
    assert spread != 1
    h, _ = Carried(model)(batch.seen, Carried(model).fresh(len(batch.seen)))
    normal = np.asarray(model.get_layer("forecast").normal(h))[batch.counts > 0]
    truth = batch.change[batch.counts > 0]
    covered = np.mean((normal[..., 1] <= truth) & (truth <= normal[..., -1]))
    assert covered == pytest.approx(0.9, abs=0.01)


def test_losses_are_least_at_the_mean_the_root_of_the_mean_square_and_the_quantiles():
    draws = np.random.default_rng(1).gamma(2.0, 1.0, 4000).astype(np.float32)
    counts = ones = np.ones((1, len(draws)), np.float32)

    def best(loss, change, columns, column):
        grid = np.linspace(-1, 5, 241)
        normal = np.zeros((1, len(draws), 1, columns), np.float32)
        values = [
            float(loss(_with(normal, column, each), change[None, :, None], ones[..., None], counts)) for each in grid
        ]
        return grid[int(np.argmin(values))]

    assert best(Loss(job()), draws, 4, 0) == pytest.approx(draws.mean(), abs=0.05)
    assert best(Loss(job()), draws, 4, 3) == pytest.approx(np.quantile(draws, 0.95), abs=0.1)
    data = job(log=True).model_dump()
    data["targets"][0]["loss"] = "qlike"
    qlike = Loss(Job.model_validate(data))
    # changes of the logarithm of a volatility: the best forecast of its square is the mean square
    assert best(qlike, np.log(draws), 4, 0) == pytest.approx(np.log(np.sqrt(np.mean(draws**2))), abs=0.05)


def _with(normal, column, value):
    normal = normal.copy()
    normal[..., column] = value
    return normal


def test_a_fitted_model_survives_saving_with_its_spread(fitted, tmp_path):
    fitted.model.save(tmp_path / "wave.keras")
    again = keras.saving.load_model(tmp_path / "wave.keras")
    x = wave().values[None, :50]
    np.testing.assert_array_equal(np.asarray(fitted.model(x)), np.asarray(again(x)))
    assert again.get_layer("forecast").spread.numpy() == pytest.approx(fitted.spread)
