"""Exports, imports and migrations stopped in the middle: what is there is whole, and the next run goes on from it."""

import json
import random
import secrets
import signal

import pytest

from tests.held.process import BOUND_S, held, stop
from tests.service.moving.processes import command as command_of
from tests.service.moving.processes import run, started, taking_some, written
from tests.service.moving.records import content, fill, key
from tests.serving import wait_until

MANY = [key(number) for number in range(4_000)]  # about 9 MB as a file: some of it is noted before the end
SECOND_NOTE = "os.rename 2 records.jsonl.part.json"  # about half of it is written, and the first quarter noted
ENDS = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 130}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('large')}/s"
    fill(url, MANY)
    return url


@pytest.fixture(scope="module")
def expected(large):
    return content(large)


@pytest.fixture
def origin(large, tmp_path, command):
    """What the command moves from: the large store, or a file of it."""
    if command == "migrate":
        return large
    run("export", "--from", large, "--to", tmp_path / "records.jsonl")
    return tmp_path / "records.jsonl"


@pytest.fixture
def rng():
    seed = secrets.randbits(32)
    print("seed", seed)
    return random.Random(seed)


def at_random(rng, goals, amount, *arguments):
    """Runs the command, killed once `amount()` has come to a random goal, unless it ends before."""
    goal = rng.uniform(*goals)
    with started(*arguments) as process:
        wait_until(lambda: amount() >= goal or process.poll() is not None, BOUND_S, f"{goal:.0f}", every_s=0.0005)
        stop(process, signal.SIGKILL)


# -- exports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_a_stopped_export_goes_on_where_it_was(large, expected, tmp_path, how):
    file, note = tmp_path / "records.jsonl", tmp_path / "records.jsonl.part.json"
    with held(SECOND_NOTE, command_of("export", "--from", large, "--to", file)) as process:
        ended, errors = stop(process, how)
    assert (ended, file.exists()) == (ENDS[how], False), errors
    assert how == signal.SIGKILL or "finishes it" in errors
    noted = json.loads(note.read_text())
    assert 0 < noted["records"] < len(MANY) / 2
    before = (tmp_path / "records.jsonl.part").read_bytes()[: noted["size"]]
    run("export", "--from", large, "--to", file)
    assert not note.exists()
    whole = file.read_bytes()
    assert whole.startswith(before)
    assert len(whole.splitlines()) == len(MANY) + 2, "gone on with, not begun anew or written twice"
    target = f"sqlite:///{tmp_path}/t"
    run("import", "--from", file, "--to", target)
    assert content(target) == expected


@pytest.mark.parametrize("moment", ["os.remove 1 records.jsonl.part.json", "os.rename 1 records.jsonl"])
def test_an_export_killed_at_its_very_end_is_finished_by_the_same_command(large, expected, tmp_path, moment):
    file = tmp_path / "records.jsonl"
    again = ("export", "--from", large, "--to", file, "--replace")
    with held(moment, command_of(*again)) as process:
        stop(process, signal.SIGKILL)
    run(*again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.jsonl"]
    assert len(file.read_bytes().splitlines()) == len(MANY) + 2
    target = f"sqlite:///{tmp_path}/t"
    run("import", "--from", file, "--to", target)
    assert content(target) == expected


def test_an_export_killed_at_any_moments_ends_whole(large, expected, tmp_path, rng):
    file = tmp_path / "records.jsonl"
    part = tmp_path / "records.jsonl.part"
    for _ in range(5):
        file.unlink(missing_ok=True)
        at_random(
            *(rng, (1, 9_000_000), lambda: part.stat().st_size if part.exists() else 0),
            *("export", "--from", large, "--to", file),
        )
    run("export", "--from", large, "--to", file, "--replace")
    assert len(file.read_bytes().splitlines()) == len(MANY) + 2
    target = f"sqlite:///{tmp_path}/t"
    run("import", "--from", file, "--to", target)
    assert content(target) == expected


def test_what_is_left_of_another_export_is_neither_used_nor_lost(large, tmp_path):
    file, source = tmp_path / "records.jsonl", f"sqlite:///{tmp_path}/source"
    with held(SECOND_NOTE, command_of("export", "--from", large, "--to", file)) as process:
        stop(process, signal.SIGKILL)
    fill(source, MANY[:1])
    for other in (("--from", source), ("--from", large, "--model", "toy")):
        assert "is of another export" in run("export", *other, "--to", file, status=1)
    (tmp_path / "records.jsonl.part").write_bytes(b"")
    assert "has lost its end" in run("export", "--from", large, "--to", file, status=1)
    (tmp_path / "records.jsonl.part.json").write_text("{")
    assert "is damaged" in run("export", "--from", large, "--to", file, status=1)
    (tmp_path / "records.jsonl.part.json").unlink()
    run("export", "--from", source, "--to", file)
    assert len(file.read_bytes().splitlines()) == 3


# -- imports and migrations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["migrate", "import"])
@pytest.mark.parametrize("how", ENDS)
def test_a_stopped_move_goes_on_where_it_was(origin, expected, target, command, how):
    with taking_some(target), started(command, "--from", origin, "--to", target) as process:
        wait_until(lambda: content(target) or process.poll() is not None, BOUND_S, "the first records")
        ended, errors = stop(process, how)
        assert ended == ENDS[how], errors
        there = content(target)
    assert 0 < len(there) < len(MANY)
    assert there.items() <= expected.items(), "whole records, or none"
    output = run(command, "--from", origin, "--to", target)
    assert f"{len(MANY) - len(there):,} records moved, {len(there):,} were there" in output
    assert content(target) == expected


@pytest.mark.parametrize("command", ["migrate", "import"])
def test_a_move_killed_at_any_moments_leaves_whole_records_and_ends_whole(origin, expected, target, command, rng):
    for _ in range(4):
        at_random(rng, (1, 12_000_000), lambda: written(target), command, "--from", origin, "--to", target)
        assert content(target).items() <= expected.items(), "whole records, or none"
    there = len(content(target))
    output = run(command, "--from", origin, "--to", target)
    assert f"{len(MANY) - there:,} records moved, {there:,} were there" in output
    assert content(target) == expected


def test_two_that_bring_the_same_at_once_end_as_one(large, expected, target):
    both = [started("migrate", "--from", large, "--to", target) for _ in range(2)]
    said = [process.communicate(timeout=BOUND_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert content(target) == expected
