"""Two runs of the benchmark side by side: what is slower is said, and fails."""

import copy
import json

import pytest
from click.testing import CliRunner

from benchmarks.compare import BOUND, changes, main

RUN = {
    "ready_s": 0.8,
    "engine": {
        "1": {"step_us": 8.0, "bare_us": 5.0, "ratio": 1.6},
        "32": {"step_us": 60.0, "bare_us": 50.0, "ratio": 1.2},
    },
    "bulk": {"one worker": {"of_empty": 40.0, "processor_us": 9.0}},
    "priming": {
        "history": {"cpu_ratio": 1.5, "http_ms": 100.0},
        "rebuild": {"cpu_ratio": 1.2, "rebuild_ms": 2.0},
        "others": {"priming": {"p99_ms": 20.0}},
    },
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


@pytest.mark.parametrize(
    ("path", "slower", "named"),
    [
        (("bulk", "one worker", "of_empty"), 30.0, "bulk, one worker: steps for each request of empty by 25%"),
        (("engine", "32", "ratio"), 1.5, "engine step, batch 32: of bare LiteRT by 25%"),
        (("priming", "history", "cpu_ratio"), 2.1, "history: processor time of bare LiteRT's by 40%"),
        (("priming", "rebuild", "cpu_ratio"), 1.5, "rebuild: processor time of bare LiteRT's by 25%"),
    ],
)
def test_every_ratio_counts(path, slower, named):
    after = copy.deepcopy(RUN)
    at(after, path[:-1])[path[-1]] = slower
    slower = [each for each in changes(RUN, after) if each.counts and each.worse > BOUND]
    assert [f"{each.name} by {each.worse:.0%}" for each in slower] == [named]


@pytest.mark.parametrize(
    "path",
    [
        ("ready_s",),
        ("bulk", "one worker", "processor_us"),
        ("engine", "32", "step_us"),
        ("priming", "history", "http_ms"),
        ("priming", "others", "priming", "p99_ms"),
    ],
)
def test_what_depends_on_the_machine_is_shown_and_does_not_count(path):
    after = copy.deepcopy(RUN)
    at(after, path[:-1])[path[-1]] *= 3
    worse = [each for each in changes(RUN, after) if each.worse > BOUND]
    assert len(worse) == 1
    assert not worse[0].counts


def test_a_run_of_an_earlier_benchmark_is_compared_by_what_it_has():
    earlier = {key: RUN[key] for key in ("ready_s", "load")}
    assert len(changes(earlier, RUN)) == len(changes(earlier, earlier)) > 0


def at(run, path):
    for name in path:
        run = run[name]
    return run


def test_what_is_no_run_is_named(compare, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    compare(1.0)
    result = CliRunner().invoke(main, [str(tmp_path / "before.json"), str(tmp_path / "other.json")])
    assert result.exit_code == 1
    assert "other.json is no run" in result.output
