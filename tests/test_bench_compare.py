"""Two runs of the benchmark side by side: what is slower is said, and fails."""

import copy
import json

import pytest
from click.testing import CliRunner

from benchmarks.compare import main

RUN = {
    "ready_s": 0.8,
    "engine_step_us": {"1": 12.0, "32": 60.0},
    "load": {
        "empty": {"8": {"per_s": 2000.0, "p50_ms": 4.0, "p99_ms": 8.0, "ratio": 1.0}},
        "one worker": {"8": {"per_s": 3000.0, "p50_ms": 2.0, "p99_ms": 6.0, "ratio": 1.5}},
    },
}


@pytest.fixture
def compare(tmp_path):
    def run(ratio, *more, per_s=3000.0):
        after = copy.deepcopy(RUN)
        after["load"]["one worker"]["8"] |= {"ratio": ratio, "per_s": per_s}
        (tmp_path / "before.json").write_text(json.dumps(RUN))
        (tmp_path / "after.json").write_text(json.dumps(after))
        return CliRunner().invoke(main, [str(tmp_path / "before.json"), str(tmp_path / "after.json"), *more])

    return run


def test_a_ratio_that_fell_by_more_than_the_bound_fails_and_is_named(compare):
    result = compare(1.2)
    assert result.exit_code == 1
    assert "predict, one worker, 8 connections: of empty by 20%" in result.output


def test_less_than_that_is_noise_and_so_is_a_machine_that_is_slower_as_a_whole(compare):
    assert compare(1.3).exit_code == 0
    assert compare(1.5, per_s=1000.0).exit_code == 0
    assert compare(1.9).exit_code == 0


def test_the_bound_can_be_chosen(compare):
    assert compare(1.3, "--bound", "0.1").exit_code == 1


def test_what_is_no_run_is_named(compare, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    compare(1.0)
    result = CliRunner().invoke(main, [str(tmp_path / "before.json"), str(tmp_path / "other.json")])
    assert result.exit_code == 1
    assert "other.json is no run" in result.output
