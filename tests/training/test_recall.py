"""The recall task (DESIGN: architectures): an lstm holds one value for a hundred steps, what has no gates does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from training.recall import main
from training.recall_plots import example, gates_over
from training.recall_task import FAR, LENGTH, SEEDS, UPDATES, draw, evaluation, network, r2

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recall.md"
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def recalled(tmp_path_factory):
    """R2 at lag 100 or more by architecture and seed, from the command itself: a process for each architecture, side by
    side, the same updates for all."""
    folder, found = tmp_path_factory.mktemp("recall"), {}
    with ExitStack() as stack:
        processes = {}
        for architecture in ("simple_rnn", "lstm", "feed_forward"):
            command = [sys.executable, "-m", "training.recall", "--architecture", architecture]
            command += ["--updates", str(UPDATES), "--out", str(folder / f"{architecture}.png")]
            log = stack.enter_context((folder / f"{architecture}.log").open("wb"))
            processes[architecture] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            stack.callback(processes[architecture].wait)
            stack.callback(processes[architecture].kill)
        for architecture, process in processes.items():
            assert process.wait() == 0, (folder / f"{architecture}.log").read_text()
            for run in json.loads((folder / f"{architecture}.json").read_text())["runs"]:
                found[run["architecture"], run["seed"]] = run["r2_at_lag_100_or_more"]
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_an_lstm_recalls_a_value_after_a_hundred_steps(recalled, seed):
    assert recalled["lstm", seed] >= 0.9


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("architecture", ["simple_rnn", "feed_forward"])
def test_what_has_no_gates_does_not(recalled, architecture, seed):
    assert recalled[architecture, seed] <= 0.5


def test_the_target_is_the_value_at_the_last_mark():
    series = draw(50, (3, 4)).numpy()
    for x, y, lag in zip(series.x, series.y, series.lag, strict=True):
        assert x[0, 1] == 1.0
        held = since = None
        for step in range(LENGTH):
            held, since = (x[step, 0], 0) if x[step, 1] == 1.0 else (held, since + 1)
            assert (y[step], lag[step]) == (held, since)


def test_evaluation_series_are_uniform_rarely_marked_and_full_of_long_lags():
    series = evaluation()
    value, mark = series.x[..., 0], series.x[..., 1]
    assert -1 <= value.min() < -0.999
    assert 0.999 < value.max() < 1
    assert value.std() == pytest.approx(1 / np.sqrt(3), abs=0.002)
    assert mark[:, 1:].mean() == pytest.approx(0.015, abs=0.0005)
    assert (series.lag >= FAR).sum() > 80_000


def test_training_never_sees_the_evaluation_series():
    seen = {row.tobytes() for row in evaluation().y}
    for seed in SEEDS:
        for update in range(0, UPDATES, 100):
            assert seen.isdisjoint(row.tobytes() for row in draw(32, (seed, 2 * update)).numpy().y)


def test_r2_is_one_for_the_truth_and_nothing_for_the_mean():
    series = evaluation()
    far = series.lag >= FAR
    assert r2(series.y, series.y, far) == 1.0
    assert r2(np.full_like(series.y, series.y[far].mean()), series.y, far) == pytest.approx(0, abs=1e-6)


def test_gates_are_those_the_network_itself_runs_with():
    keras.utils.set_random_seed(5)
    model = network("lstm")
    x = example(evaluation()).x
    gates = gates_over(model, x)
    c = h = np.zeros(32, np.float32)
    for i, f, g, o in zip(*(gates[name] for name in "ifco"), strict=True):
        c = f * c + i * g
        h = o * np.tanh(c)
    kernel, bias = model.get_layer("head").get_weights()
    np.testing.assert_allclose(h @ kernel + bias, model.predict(x[None], verbose=0)[0, -1], atol=1e-5)


def test_the_command_writes_plots_and_figures_and_untrained_networks_recall_nothing(tmp_path):
    out = tmp_path / "docs" / "recall.png"
    done = CliRunner().invoke(main, ["--out", str(out), "--updates", "0", "--seeds", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.with_name("recall_gates.png").read_bytes().startswith(b"\x89PNG")
    runs = json.loads(out.with_suffix(".json").read_text())["runs"]
    assert [run["architecture"] for run in runs] == ["lstm", "gru", "simple_rnn", "feed_forward"]
    assert all(run["r2_at_lag_100_or_more"] < 0.1 for run in runs)


def test_the_page_says_what_was_measured():
    measured = json.loads(PAGE.with_suffix(".json").read_text())["runs"]
    rows = re.findall(r"^\| `(\w+)` \| ([-.\d]+) \| ([-.\d]+) \| ([-.\d]+) \|", PAGE.read_text(), re.MULTILINE)
    told = {(name, seed): float(text) for name, *texts in rows for seed, text in enumerate(texts)}
    assert told == {(run["architecture"], run["seed"]): round(run["r2_at_lag_100_or_more"], 3) for run in measured}
