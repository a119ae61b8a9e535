"""A state rebuilt from a context comes within 1 % of scale of one with the whole history, and the page says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from models.manifest import Feature, Target
from models.repository import Repository
from training.export import export
from training.rebuild import BOUND, LONGEST, main, measure
from training.stepping import open_stepper

PAGE = Path(__file__).parents[2] / "docs" / "rebuild.md"
KEPT = 0.97  # of the average is left after a step


def slow_average() -> keras.Model:
    """An average whose memory fades by 3 % a step: (B, T, 1) -> (B, T, 1)."""
    x = layers.Input((None, 1))
    average = layers.SimpleRNN(1, activation="linear", return_sequences=True)
    y = average(x)
    average.set_weights([np.float32([[1 - KEPT]]), np.float32([[KEPT]]), np.float32([0])])
    return keras.Model(x, y)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The slow average's stepper and manifest."""
    folder = tmp_path_factory.mktemp("average") / "bundle"
    spread = (1 - KEPT) / (1 - KEPT**2) ** 0.5  # its standard deviation over white noise
    manifest = export(
        slow_average(),
        folder,
        name="average",
        features=[Feature(name="level", unit="m")],
        targets=[Target(name="level", unit="m", scale=spread)],
        interval_s=None,
        quantiles=(),
        architecture="simple_rnn",
    )
    return open_stepper(folder), manifest


def test_the_context_length_rebuilds_a_state_within_one_percent_of_scale(exported):
    stepper, manifest = exported
    series = np.random.default_rng(8).normal(size=(3_000, 1)).astype(np.float32)
    worst = measure(stepper, manifest, series, 600).worst()
    c = manifest.context_length
    assert 100 < c <= LONGEST
    assert worst[c - 1 :].max() <= BOUND
    assert worst[c // 2 - 1] > BOUND  # half of it would not do


def test_the_error_is_that_of_a_state_begun_afresh(exported):
    stepper, manifest = exported
    series = np.random.default_rng(9).normal(size=(900, 1)).astype(np.float32)
    error = measure(stepper, manifest, series, 300, starts=1, longest=50).error[:, 0]
    whole = slow_average()(series[None, :350]).numpy()[0, :, 0]
    afresh = slow_average()(series[None, 300:350]).numpy()[0, :, 0]
    np.testing.assert_allclose(error, np.abs(whole[300:] - afresh) / manifest.targets[0].scale, atol=1e-4)


def test_a_series_that_is_too_short_is_refused(exported):
    stepper, manifest = exported
    with pytest.raises(ValueError, match="too few"):
        measure(stepper, manifest, np.zeros((600, 1), np.float32), 100)


def test_a_model_that_is_not_there_is_named(tmp_path):
    Repository(tmp_path)
    refused = CliRunner().invoke(main, ["nobody", "--models-dir", str(tmp_path)])
    assert refused.exit_code == 1
    assert "nobody" in refused.output


def test_the_page_states_what_was_measured():
    measured = json.loads(PAGE.with_suffix(".json").read_text())
    percent = measured["percent_of_scale_by_observations"]
    rows = re.findall(r"^\| (\d+)[^|]*\| ([\d.]+) \| ([\d.]+) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 5
    for length, largest, mean in rows:
        assert float(largest) == pytest.approx(percent["largest"][int(length) - 1], rel=0.05, abs=6e-4)
        assert float(mean) == pytest.approx(percent["mean"][int(length) - 1], rel=0.05, abs=6e-4)
    assert max(percent["largest"][measured["context_length"] - 1 :]) <= 100 * BOUND
