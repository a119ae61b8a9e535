"""What a run of the benchmark says of itself: verdicts from figures, tables, pages, and sections that stay."""

import copy
import io

import pytest
from rich.console import Console

from benchmarks import bulk, instructions, sampled, scale_page, table, wanted
from benchmarks.page import page
from benchmarks.scale_plot import draw
from benchmarks.sections import carry_over, write_section

LOAD = {"per_s": 3000.0, "p50_ms": 2.0, "p99_ms": 7.0, "ratio": 2.1}
STEPS = {"steps_per_s": 70_000.0, "of_empty": 47.0, "p50_ms": 14.0, "p99_ms": 30.0, "processor_us": 9.0}
SERIES = {"ratio": 1.5, "cpu_ratio": 1.4, "bare_ms": 60.0}
MACHINE = {
    "when": "2026-01-02T03:04:05+00:00", "cpu": "a processor", "cores": 2, "load_before": 0.1, "python": "3.11.7",
    "gunicorn": "1", "flask": "2", "ai-edge-litert": "3",
}  # fmt: skip


def a_run():
    seen = {
        "machine": MACHINE, "bundle": "some model", "seconds": 2, "rounds": 4, "ready_s": 0.9,
        "load": {
            "empty": {8: LOAD | {"ratio": 1.0}}, "one worker": {8: LOAD}, "two workers": {8: LOAD | {"ratio": 3.1}},
        },
        "workers": {
            "empty": [{"resident_mb": 500.0, "tensorflow": False}],
            "one worker": [{"resident_mb": 90.0, "tensorflow": False}],
        },
        "engine": {n: {"step_us": 10.0 * n, "bare_us": 8.0 * n, "ratio": 1.25} for n in (1, 32, 256)},
        "store": [["1", "9,000", "77", "238", "300", "4", "30", "0"]] * 2,
        "bulk": {"one worker": STEPS, "two workers": STEPS | {"steps_per_s": 90_000.0}},
        "bulk_bare": {"json": 2.0, "engine": 2.5, "checksums": 1.25, "sqlite": 8.0, "all": 13.75},
        "priming": {
            "history": SERIES | {"observations": 10_000, "http_ms": 100.0},
            "rebuild": SERIES | {"rows": 256, "rebuild_ms": 2.5},
            "others": {"observations": 100_000, "alone": LOAD, "priming": LOAD},
            "resident_mb": 95.0,
        },
    }  # fmt: skip
    return seen | {"wanted": wanted.verdicts(seen)}


def shown(seen):
    written = io.StringIO()
    table.show(Console(file=written, width=160), seen)
    return written.getvalue()


def missed(seen):
    return [each["name"] for each in wanted.verdicts(seen) if each["verdict"] == "missed"]


def test_a_run_within_every_bound_has_reached_everything():
    seen = a_run()
    assert missed(seen) == []
    assert {each["verdict"] for each in seen["wanted"]} == {"reached"}


def test_what_is_wanted_of_granian_counts_only_where_it_was_measured():
    name, seen = f"{wanted.GRANIAN}, 8 connections, of empty", a_run()
    assert name not in [each["name"] for each in seen["wanted"]]
    assert "granian is not installed" in shown(seen)
    for ratio, verdict in ((3.0, "reached"), (2.9, "missed")):
        seen["load"][wanted.GRANIAN] = {8: LOAD | {"ratio": ratio}}
        assert [each["verdict"] for each in wanted.verdicts(seen) if each["name"] == name] == [verdict]
        assert "granian is not installed" not in shown(seen)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda seen: seen["load"]["one worker"][8].update(ratio=1.79), "one worker, 8 connections, of empty"),
        (lambda seen: seen["load"]["two workers"][8].update(ratio=2.9), "two workers, 8 connections, of empty"),
        (lambda seen: seen["load"]["one worker"][8].update(p99_ms=8.1), "one worker, 8 connections, p99 over p50"),
        (lambda seen: seen["bulk"]["two workers"].update(steps_per_s=1.0), "bulk, two workers, of one's"),
        (lambda seen: seen["priming"]["history"].update(http_ms=151.0), "history of 10,000"),
        (lambda seen: seen["priming"]["rebuild"].update(rebuild_ms=3.1), "rebuild of 256"),
        (lambda seen: seen["engine"][1].update(step_us=15.1), "engine step, one client"),
        (lambda seen: seen["engine"][256].update(ratio=1.51), "engine step, 256 clients, of bare LiteRT"),
        (lambda seen: seen.update(ready_s=1.51), "start to ready, two models"),
        (lambda seen: seen["workers"]["one worker"][0].update(resident_mb=121.0), "memory of the largest worker"),
    ],
)
def test_a_figure_beyond_its_bound_is_missed_and_nothing_else_is(change, name):
    seen = copy.deepcopy(a_run())
    change(seen)
    assert missed(seen) == [name]


def test_a_bound_itself_is_reached_and_an_aim_is_not_needed():
    seen = copy.deepcopy(a_run())
    seen["load"]["one worker"][8]["ratio"] = 1.8
    seen["bulk"]["one worker"]["steps_per_s"] = 60_000.0
    assert missed(seen) == []


def test_a_page_and_a_table_tell_figure_bound_and_verdict():
    seen = copy.deepcopy(a_run())
    seen["bulk"]["one worker"]["steps_per_s"] = 41_234.0
    seen["wanted"] = wanted.verdicts(seen)
    row = "| bulk, one worker | 41,234 steps/s | at least 60,000 steps/s; aim 100,000 steps/s | missed |"
    assert row in page(seen)
    assert "take 13.8 of these: SQLite\n  8.0, the engine 2.5, JSON 2.0, checksums 1.2." in page(seen)
    line = next(line for line in shown(seen).splitlines() if "bulk, one worker" in line)
    assert "41,234 steps/s" in line
    assert "missed" in line


def test_a_page_that_is_written_anew_keeps_the_sections_of_other_commands(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(page(a_run()))
    write_section(file, "million", "## A million clients\n")
    write_section(file, "scale", "## Scale, first\n")
    file.write_text(carry_over(file, page(a_run()), "million", "scale"))
    write_section(file, "scale", "## Scale, again\n")
    text = file.read_text()
    assert text.startswith("# Benchmarks")
    assert text.count("## A million clients") == text.count("## Scale, again") == 1
    assert "## Scale, first" not in text
    before = text
    write_section(file, "scale", "## Scale, again\n")
    assert file.read_text() == before


def curves():
    def point(what, at, **more):
        speed = {"per_s": 3000.0 / at, "p50_ms": 2.0, "p99_ms": 7.0 * at, "ratio": 2.0 / at}
        return {"what": what, "at": at, **speed, "worker_us": 300.0, "worker_cores": 0.8, "busy_cores": 1.6, **more}

    return {
        "machine": MACHINE, "bundle": "some model", "seconds": 3, "rounds": 4,
        "clients": [point("clients", n, bytes=4500.0, load_us=n / 100) for n in (1000, 100_000)],
        "workers": [point("workers", n) for n in (1, 2)],
        "units": [point("units", n, step_us=n**2 / 100, step_256_us=n**2) for n in (32, 64, 512)],
        "replicas": [point("replicas", n, store_us=400.0) for n in (1, 2)],
    }  # fmt: skip


def test_the_section_on_scale_has_every_point_and_says_what_was_measured_of_each_limit():
    text = scale_page.section(curves())
    assert text.count("\n| clients |") + text.count("\n| units |") == 5
    assert "among 1,000" in text
    assert "10 us at 32 (3%)" in text
    assert "256 times from the smallest to the largest" in text


def test_the_four_curves_become_a_picture(tmp_path):
    draw(curves(), tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


CALLGRIND = """
events: Ir
summary: 99999

ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) Python/ceval.c
fn=(1) _PyEval_EvalFrameDefault'2
12 {ceval}
+3 500
cob=(2) /x/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so
cfn=(2) take
calls=7 0
* 90000
fi=(2) Include/object.h
* 500

ob=(2)
fn=(2)
0 {numpy}
"""


def test_instructions_of_a_predict_are_what_two_runs_differ_in_without_what_a_function_calls():
    few = instructions.counted(CALLGRIND.format(ceval=5_000, numpy=3_000).splitlines())
    many = instructions.counted(CALLGRIND.format(ceval=15_000, numpy=8_000).splitlines())
    assert few == {"python": 6_000, "numpy": 3_000}
    assert instructions.each_predict(few, many, 100) == {"python": 100.0, "numpy": 50.0, "others": 0.0}


def test_samples_count_for_the_module_they_were_taken_in_and_only_those_of_the_loop():
    raw = (
        'thread (0x7F): "MainThread";run (/v/site-packages/gunicorn/app.py:3);load (/w/service/stores/shard.py:9) 30\n'
        'thread (0x7F): "MainThread";run (/v/site-packages/gunicorn/app.py:3) 10\n'
        'thread (0x80): "recurve-request_0";wait (/usr/lib/python3.11/threading.py:5) 500\n'
    )
    assert sampled.by_module(raw) == {"service/stores/shard.py": 30, "gunicorn": 10}


def test_bulk_tells_its_figures():
    written = io.StringIO()
    bulk.show(Console(file=written, width=120), {"one worker": STEPS})
    assert "70,000" in written.getvalue()
