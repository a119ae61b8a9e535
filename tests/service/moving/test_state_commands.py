"""`python -m service state`: records move whole, once, over nothing newer."""

import fcntl
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from service.core.errors import StoreUnavailable
from service.core.lease import TENANT as LEASES
from service.core.ports import Entry
from service.core.tombstones import Tombstone, encode, stone_key
from service.moving.dump import Writer
from service.moving.transfer import patiently
from service.stores import open_store
from tests.service.moving.processes import command, run
from tests.service.moving.records import NOW, content, entry, fill, key, put
from tests.serving import ROOT

SEED = 7
pytestmark = pytest.mark.usefixtures("patient")


KEYS = [*map(key, range(300)), key(1, model="other"), key(1, tenant="somebody")]


# -- migrate ----------------------------------------------------------------------------------------------------------


def test_migrating_brings_every_record_to_the_byte_and_leaves_the_source(source, target):
    fill(source, KEYS)
    put(source, key(1)._replace(tenant="~quarantine~default"), b"torn....", b"no record")
    before = content(source)
    assert "303 records moved, 0 were there" in run("migrate", "--from", source, "--to", target)
    assert content(target) == content(source) == before
    back = f"{source}-again"
    run("migrate", "--from", target, "--to", back)
    assert content(back) == before
    assert "0 records moved, 303 were there" in run("migrate", "--from", source, "--to", target)


def test_migrating_again_brings_what_moved_on_and_nothing_over_what_moved_on_there(source, target):
    fill(source, KEYS)
    run("migrate", "--from", source, "--to", target)
    fill(source, KEYS[:5], step=2, touched=NOW + 1)
    fill(target, KEYS[5:10], step=7, touched=NOW + 2)
    kept = content(target)
    output = run("migrate", "--from", source, "--to", target)
    assert "5 records moved, 292 were there" in output
    assert "5 stayed as they are" in output
    found, ours = content(target), content(source)
    assert {one: found[one] for one in KEYS[5:10]} == {one: kept[one] for one in KEYS[5:10]}
    assert all(found[one] == ours[one] for one in KEYS if one not in KEYS[5:10])
    assert "5 records moved" in run("migrate", "--from", source, "--to", target, "--replace")
    assert content(target) == ours


def test_of_two_at_the_same_time_the_later_step_counts(source, target):
    fill(source, KEYS[:1], step=8)
    fill(target, KEYS[:1], step=9)
    assert "1 stayed" in run("migrate", "--from", source, "--to", target)


def test_of_two_that_are_equally_old_the_one_that_is_there_stays(source, target):
    fill(source, KEYS[:1])
    (_, blob) = content(source)[KEYS[0]]
    put(target, KEYS[0], b"another!", blob)
    assert "1 stayed" in run("migrate", "--from", source, "--to", target)
    assert content(target) == {KEYS[0]: (b"another!", blob)}


def test_bytes_that_no_release_reads_are_moved_and_never_overwritten(source, target):
    put(source, KEYS[0], b"12345678", b"from here")
    run("migrate", "--from", source, "--to", target)
    put(source, KEYS[1], b"12345678", b"from here")
    put(target, KEYS[1], b"87654321", b"from there")
    assert "1 stayed" in run("migrate", "--from", source, "--to", target)
    assert content(target) == {KEYS[0]: (b"12345678", b"from here"), KEYS[1]: (b"87654321", b"from there")}


def test_a_copy_that_was_damaged_under_its_nonce_is_repaired(source, target):
    fill(source, KEYS[:1])
    nonce, blob = content(source)[KEYS[0]]
    put(target, KEYS[0], nonce, blob[:-1] + b"?")
    assert "1 records moved" in run("migrate", "--from", source, "--to", target)
    assert content(target) == content(source)


def test_one_tenant_or_one_model_moves_alone_and_leases_never(source, target):
    fill(source, KEYS)
    for tenant in (LEASES, "~expired~somebody", "~quarantine~somebody", "~expired~default"):
        put(source, key(2, tenant=tenant), b"12345678", b"a mark")
    run("migrate", "--from", source, "--to", target, "--tenant", "somebody")
    assert sorted(content(target)) == [
        key(1, "somebody"),
        *(key(2, f"~{kept}~somebody") for kept in ("expired", "quarantine")),
    ]
    run("migrate", "--from", source, "--to", target, "--model", "other")
    assert key(1, model="other") in content(target)
    assert len(content(target)) == 4
    run("migrate", "--from", source, "--to", target)
    assert set(content(source)) - set(content(target)) == {key(2, tenant=LEASES)}


def test_of_two_tombstones_the_later_stays(source, target):
    place = stone_key(KEYS[0])

    def bury(url, step, nonce):
        stone = Tombstone("stable", 1, step, NOW, NOW, NOW + step, NOW + 10, b"12345678")
        put(url, place, nonce, encode(place, stone))

    bury(source, 5, b"older...")
    bury(target, 6, b"newer...")
    assert "1 stayed" in run("migrate", "--from", source, "--to", target)
    assert "1 records moved" in run("migrate", "--from", target, "--to", source)
    assert content(source) == content(target)


def test_a_client_that_was_buried_in_the_target_since_does_not_come_back_from_the_dead(source, target):
    """It moved on there and expired: its old record would take its number back."""
    fill(source, KEYS[:3])
    run("migrate", "--from", source, "--to", target)
    store = open_store(target)
    for one, touched in (
        (KEYS[0], NOW + 9),
        (KEYS[1], NOW),
        (KEYS[2], NOW - 9),
    ):  # moved on, as it came, of a life before
        assert store.delete(one)
        place = stone_key(one)
        stone = Tombstone("stable", 1, 7 if touched > NOW else 1, NOW, NOW, touched, NOW + 10, b"12345678")
        assert store.save(place, None, b"buried..", encode(place, stone))
    store.close()
    buried = {one: kept for one, kept in content(target).items() if one.tenant.startswith("~")}
    output = run("migrate", "--from", source, "--to", target)
    assert "2 records moved, 0 were there" in output
    assert "1 stayed" in output
    assert content(target) == buried | {one: kept for one, kept in content(source).items() if one != KEYS[0]}
    assert "1 records moved, 2 were there" in run("migrate", "--from", source, "--to", target, "--replace")
    assert content(target) == buried | content(source)


# -- export and import ------------------------------------------------------------------------------------------------


def test_an_export_imports_to_the_byte(source, target, tmp_path):
    fill(source, KEYS)
    file = tmp_path / "records.jsonl"
    run("export", "--from", source, "--to", file)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["records.jsonl"]
    assert "302 records moved" in run("import", "--from", file, "--to", target)
    assert content(target) == content(source)
    assert "0 records moved, 302 were there" in run("import", "--from", file, "--to", target)


@pytest.mark.parametrize("steps", [(1, 2), (2, 1)])
def test_of_a_client_that_is_in_a_file_twice_the_newer_is_taken(target, tmp_path, steps):
    """As one is that moved on while the export ran."""
    file = tmp_path / "records.jsonl"
    with file.open("wb") as out:
        writer = Writer(out)
        writer.begin("now")
        for one in KEYS[:30]:
            for step in steps:
                writer.add(Entry(one, *entry(one, step, NOW + step)))
        writer.end()
    run("import", "--from", file, "--to", target)
    assert content(target) == {one: entry(one, 2, NOW + 2) for one in KEYS[:30]}


def test_an_export_of_any_store_goes_through_a_pipe(source, target):
    fill(target, KEYS[:20])
    command = [sys.executable, "-m", "service", "state"]
    out = subprocess.run(
        [*command, "export", "--from", target, "--to", "-"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    assert json.loads(out.splitlines()[0])["format"] == "recurve-records/1"
    done = subprocess.run(
        [*command, "import", "--from", "-", "--to", source], cwd=ROOT, input=out, capture_output=True, check=True
    )
    assert b"20 records moved" in done.stdout
    assert content(source) == content(target)
    cut = subprocess.run(
        [*command, "import", "--from", "-", "--to", source], cwd=ROOT, input=out[:-20], capture_output=True, check=False
    )
    assert (cut.returncode, b"cut" in cut.stderr, cut.stdout) == (1, True, b"")


def test_a_file_with_any_damage_is_refused_before_anything_moves(source, tmp_path):
    fill(source, KEYS[:3])
    file, target = tmp_path / "records.jsonl", f"sqlite:///{tmp_path}/target"
    run("export", "--from", source, "--to", file)
    whole, random = file.read_bytes(), Random(SEED)
    print("seed", SEED)
    lines = whole.splitlines(keepends=True)
    damaged = [
        *(whole[:at] for at in random.sample(range(len(whole)), 40)),
        *(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in random.sample(range(len(whole)), 60)),
        whole + b"{}\n",
        b"".join(lines[:2] + lines[3:]),
        b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
        b"[1]\n",
        b"[" * 100_000,
        b'{"format":"recurve-records/2"}\n',
    ]
    for content_ in damaged:
        file.write_bytes(content_)
        output = run("import", "--from", file, "--to", target, status=1)
        assert "line" in output or "format" in output
    assert not (tmp_path / "target").exists()


def test_a_record_that_is_none_is_refused_whatever_its_checksum_says(tmp_path):
    good = {"client": "c", "model": "m", "nonce": "00" * 8, "record": "AAAA", "tenant": "t"}
    for bad in ({"nonce": "x"}, {"nonce": "00"}, {"record": "?"}, {"client": None, "nonce": None}):
        sealed = {**good, **bad}
        text = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
        content_ = sealed | {"sha256": hashlib.sha256(text.encode()).hexdigest()}
        file = tmp_path / "bad"
        file.write_text('{"format":"recurve-records/1"}\n' + json.dumps(content_) + "\n")
        assert "line 2 is no record" in run("import", "--from", file, "--to", f"sqlite:///{tmp_path}/t", status=1)


def test_two_exports_never_write_one_file(source, tmp_path):
    fill(source, KEYS[:1])
    with (tmp_path / "records.jsonl.part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        assert "another export" in run("export", "--from", source, "--to", tmp_path / "records.jsonl", status=1)


def test_an_export_that_opened_what_another_then_finished_leaves_it_whole(source, tmp_path, monkeypatch):
    fill(source, KEYS[:1])
    file, part, lock = tmp_path / "records.jsonl", tmp_path / "records.jsonl.part", fcntl.flock

    def finished_first(opened, operation):
        if Path(f"/proc/self/fd/{opened if isinstance(opened, int) else opened.fileno()}").resolve() == part:
            part.write_bytes(b"whole")
            part.rename(file)
        return lock(opened, operation)

    monkeypatch.setattr(fcntl, "flock", finished_first)
    assert "another export" in run("export", "--from", source, "--to", file, status=1)
    assert file.read_bytes() == b"whole"


# -- what a terminal shows --------------------------------------------------------------------------------------------


BARS = {"export": "Exporting", "import": "Importing", "migrate": "Migrating", "backup": "Copying"}


@pytest.mark.parametrize("name", BARS)
def test_on_a_terminal_a_bar_runs_to_its_end(source, tmp_path, name):
    fill(source, [key(number) for number in range(1_200)])
    origin = source
    if name == "import":
        origin = tmp_path / "records.jsonl"
        run("export", "--from", source, "--to", origin)
    to = {"export": tmp_path / "file", "backup": tmp_path / "copy"}.get(name, f"sqlite:///{tmp_path}/target")
    near, far = pty.openpty()
    shown = b""
    with subprocess.Popen(command(name, "--from", origin, "--to", to), cwd=ROOT, stdout=far, stderr=far) as process:
        os.close(far)
        with suppress(OSError):  # the other end is closed
            while piece := os.read(near, 1 << 16):
                shown += piece
    os.close(near)
    assert process.returncode == 0
    percents = [int(number) for number in re.findall(rf"{BARS[name]}[^\r\n]*?(\d+)%", shown.decode())]
    assert len(set(percents)) > 1, shown
    assert percents == sorted(percents)
    assert percents[-1] == 100


# -- what can't be done -----------------------------------------------------------------------------------------------


def test_a_source_that_is_not_there_is_named_and_not_made(source, target, tmp_path):
    assert "holds no records yet" in run("migrate", "--from", source, "--to", target, status=1)
    assert "holds no records" in run("export", "--from", source, "--to", tmp_path / "f", status=1)
    assert "no records" in run("backup", "--from", source, "--to", tmp_path / "b", status=1)
    assert not (tmp_path / "source").exists()
    assert "No such file" in run("import", "--from", tmp_path / "nothing", "--to", target, status=1)


def test_an_existing_file_is_overwritten_only_on_demand(source, tmp_path):
    fill(source, KEYS[:2])
    file = tmp_path / "records.jsonl"
    file.write_text("mine")
    assert "--replace" in run("export", "--from", source, "--to", file, status=1)
    assert file.read_text() == "mine"
    run("export", "--from", source, "--to", file, "--replace")
    assert len(file.read_bytes().splitlines()) == 4


def test_a_move_that_makes_no_sense_is_a_usage_error(source, tmp_path):
    fill(source, KEYS[:1])
    assert "the same store" in run("migrate", "--from", source, "--to", source, status=2)
    assert "lives inside" in run("migrate", "--from", "memory://", "--to", source, status=2)
    assert "lives inside" in run("migrate", "--from", source, "--to", "memory://", status=2)
    assert "only sqlite" in run("backup", "--from", "redis://:hunter2@h/0", "--to", tmp_path / "b", status=2)
    assert "hunter2" not in run("backup", "--from", "redis://:hunter2@h/0", "--to", tmp_path / "b", status=2)
    assert "no store is called" in run("migrate", "--from", source, "--to", "ftp://x", status=1)


def test_a_stop_while_python_runs_a_piece_of_text_ends_with_its_exit_code_and_not_by_the_signal():
    command = [sys.executable, "-m", "tests.stopped_in_text", "service"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "finishes it" in done.stderr) == (130, True), done.stderr


def test_a_store_that_is_away_for_a_moment_is_waited_for_and_not_for_ever():
    left = [StoreUnavailable("away")] * 2

    def call():
        if left:
            raise left.pop()
        return "back"

    assert patiently(call) == "back"
    left.extend([StoreUnavailable("away")] * 3)
    with pytest.raises(StoreUnavailable):
        patiently(call, bound_s=0.05)


def test_help_says_what_each_command_does():
    for name in ("export", "import", "migrate", "backup"):
        text = run(name, "--help")
        assert "--from" in text
        assert "--to" in text
    assert "--help" in run("--help")
