"""From journals to Parquet: every row once, whenever it is killed, and readable by others."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from models.journal import Logged
from models.journals import JOURNAL
from tests.service.observed.test_log import LoggedDesk
from tests.training.observing import DAY, NOON, block, journal
from training import compact as compact_module
from training.__main__ import main
from training.compact import NoLog, compact

ROOT = Path(__file__).parents[2]


def table(folder, model="pump"):
    """All rows of a model as pandas reads them, by client and step."""
    return pd.read_parquet(folder / "parquet" / model).sort_values(["client", "begun", "step", "time"])


def brief(folder):
    return [(row.client, row.step, row.flow) for row in table(folder).itertuples()]


def test_rows_come_out_with_the_features_by_name_in_order(tmp_path):
    journal(tmp_path, block(1, (1.0, 2.0), (3.0, 4.0)), block(3, (5.0, 6.0), times=None, absorbed=NOON + 500))
    done = compact(tmp_path)
    assert (done.journals, done.rows, done.duplicates, done.torn) == (1, 3, 0, 0)
    found = table(tmp_path)
    assert list(found) == ["tenant", "client", "step", "time", "clock", "absorbed", "begun", "flow", "heat"]
    assert found["step"].tolist() == [1, 2, 3]
    assert found["time"].tolist() == [NOON + 60, NOON + 120, NOON + 500]
    assert found["clock"].tolist() == [False, False, True]
    assert found["heat"].tolist() == [2.0, 4.0, 6.0]
    assert found["flow"].dtype == np.float32
    assert list((tmp_path / JOURNAL).iterdir()) == []
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet")] == [
        "parquet/pump/2023-11-15/part-00001.parquet"
    ]


def test_observations_that_came_together_without_times_keep_their_order(tmp_path):
    journal(tmp_path, block(1, (1.0, 0.0), (2.0, 0.0), (3.0, 0.0), times=None, absorbed=NOON))
    compact(tmp_path)
    times = table(tmp_path)["time"].to_numpy()
    assert (np.diff(times) > 0).all()
    assert times[-1] == NOON
    assert table(tmp_path)["flow"].tolist() == [1, 2, 3]


def test_days_and_models_go_apart_and_later_journals_are_added(tmp_path):
    journal(tmp_path, block(1, (1.0, 2.0)), block(2, (1.0, 2.0), absorbed=NOON + DAY))
    compact(tmp_path)
    journal(tmp_path, block(3, (7.0, 2.0), absorbed=NOON + DAY + 1))
    mill = Logged("mill", ("speed",), None)
    journal(tmp_path, block(1, (5.0,), logged=mill), logged=mill)
    done = compact(tmp_path)
    assert done.models == {"pump": 1, "mill": 1}
    assert [row[1] for row in brief(tmp_path)] == [1, 2, 3]
    assert {path.parent.name for path in tmp_path.rglob("*.parquet")} == {"2023-11-15", "2023-11-16"}
    assert table(tmp_path, "mill")["speed"].tolist() == [5.0]


def test_a_step_that_comes_again_counts_once_and_the_last_absorbed_is_kept(tmp_path):
    journal(tmp_path, block(1, (1.0, 0.0)), block(1, (1.5, 0.0), absorbed=NOON + 1000))
    done = compact(tmp_path)
    assert (brief(tmp_path), done.duplicates) == ([("a", 1, 1.5)], 1)
    journal(tmp_path, block(1, (2.0, 0.0), absorbed=NOON + 2000), block(2, (3.0, 0.0), absorbed=NOON + 2001))
    journal(tmp_path, block(1, (9.0, 0.0), absorbed=NOON + 10))  # an older word of another worker
    compact(tmp_path)
    assert brief(tmp_path) == [("a", 1, 2.0), ("a", 2, 3.0)]
    journal(tmp_path, block(2, (4.0, 0.0), absorbed=NOON + DAY))  # after midnight
    assert compact(tmp_path).rows == 0
    assert brief(tmp_path) == [("a", 1, 2.0), ("a", 2, 4.0)]


def test_a_client_that_began_anew_and_another_time_are_other_rows(tmp_path):
    journal(
        tmp_path,
        block(1, (1.0, 0.0), times=None),
        block(1, (2.0, 0.0), times=None, begun=NOON + 50),
        block(1, (3.0, 0.0), client="b"),
        block(1, (4.0, 0.0), client="b", times=[NOON + 61.0]),
    )
    compact(tmp_path)
    assert [row[2] for row in brief(tmp_path)] == [1.0, 2.0, 3.0, 4.0]


def test_torn_journals_of_killed_workers_give_what_is_whole(tmp_path):
    path = journal(tmp_path, block(1, (1.0, 0.0)), block(2, (2.0, 0.0)), closed=False)
    path.write_bytes(path.read_bytes()[:-3])
    done = compact(tmp_path)
    assert brief(tmp_path) == [("a", 1, 1.0)]
    assert done.torn == 1
    assert done.torn_bytes > 0


def test_a_file_that_is_no_journal_is_set_aside(tmp_path):
    path = journal(tmp_path, block(1, (1.0, 0.0)))
    path.with_name("0.closed").write_bytes(b"something else")
    done = compact(tmp_path)
    assert (done.rows, done.damaged) == (1, ["0.closed"])
    assert [path.name for path in (tmp_path / JOURNAL).iterdir()] == ["0.damaged"]


def test_features_called_like_our_columns_get_another_name(tmp_path):
    odd = Logged("odd", ("time", "step"), None)
    journal(tmp_path, block(1, (5.0, 6.0), logged=odd), logged=odd)
    compact(tmp_path)
    assert table(tmp_path, "odd")[["time_", "step_"]].to_numpy().tolist() == [[5.0, 6.0]]


def test_parts_that_are_full_are_not_added_to(tmp_path, monkeypatch):
    monkeypatch.setattr(compact_module, "PART_ROWS", 3)
    for first in (1, 5):
        journal(tmp_path, *(block(step, (float(step), 0.0)) for step in range(first, first + 4)))
        compact(tmp_path)
    assert [row[1] for row in brief(tmp_path)] == list(range(1, 9))
    assert sorted(len(pd.read_parquet(path)) for path in tmp_path.rglob("*.parquet")) == [2, 3, 3]


def test_retention_drops_whole_days_by_age_and_by_size(tmp_path):
    for day in range(5):
        journal(tmp_path, *(block(1 + day, (1.0, 0.0), client=f"c{i}", absorbed=NOON + DAY * day) for i in range(50)))
    compact(tmp_path)
    now = NOON + 4 * DAY
    assert compact(tmp_path, keep_days=1e9, now=lambda: now).dropped_days == []
    aged = compact(tmp_path, keep_days=3, now=lambda: now)
    assert aged.dropped_days == ["2023-11-15"]
    size = aged.bytes // 4
    sized = compact(tmp_path, keep_bytes=2 * size + size // 2, now=lambda: now)
    assert sized.dropped_days == ["2023-11-16", "2023-11-17"]
    assert compact(tmp_path, keep_bytes=0, now=lambda: now).dropped_days == ["2023-11-18"]
    assert {path.parent.name for path in tmp_path.rglob("*.parquet")} == {"2023-11-19"}


def test_a_day_that_was_dropped_in_part_by_a_killed_run_loses_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(compact_module, "PART_ROWS", 2)
    journal(tmp_path, *(block(step, (float(step), 0.0)) for step in range(1, 6)))
    compact(tmp_path)
    min(tmp_path.rglob("part-*.parquet")).unlink()
    for step in (6, 7):
        journal(tmp_path, block(step, (float(step), 0.0)))
        compact(tmp_path)
    assert [row[1] for row in brief(tmp_path)] == [3, 4, 5, 6, 7]


def test_the_command_prints_json_and_says_where_no_log_is(tmp_path):
    journal(tmp_path, block(1, (1.0, 0.0)))
    runner = CliRunner()
    first = runner.invoke(main, ["compact", "--observations-dir", str(tmp_path), "--json"])
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["rows"] == 1
    second = runner.invoke(main, ["compact", "--observations-dir", str(tmp_path)])
    assert "0 journals: 0 new rows" in second.output
    none = runner.invoke(main, ["compact", "--observations-dir", str(tmp_path / "no")])
    assert none.exit_code == 1
    assert "--log-observations" in none.output
    with pytest.raises(NoLog):
        compact(tmp_path / "no")


def test_duckdb_reads_the_log(tmp_path):
    journal(tmp_path, *(block(step, (float(step), 0.0)) for step in range(1, 11)))
    compact(tmp_path)
    query = f"SELECT count(*), sum(flow), min(to_timestamp(time))::VARCHAR FROM '{tmp_path}/parquet/pump/*/*.parquet'"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        assert database.execute(query).fetchall() == [(10, 55.0, "2023-11-15 12:01:00+00")]


def test_pandas_reads_the_log(tmp_path):
    journal(tmp_path, *(block(step, (float(step), 0.0)) for step in range(1, 11)))
    compact(tmp_path)
    found = pd.read_parquet(tmp_path / "parquet" / "pump")
    assert found.groupby("client")["flow"].sum().to_dict() == {"a": 55.0}


def test_compactions_beside_writers_that_begin_and_close_journals_lose_and_double_nothing(tmp_path):
    desks = [LoggedDesk(tmp_path / JOURNAL, journal_s=1e-3) for _ in range(2)]
    done = threading.Event()

    def observe(number, desk):
        desk.key = desk.key._replace(client=f"c{number}")
        for value in range(300):
            desk.send((float(value), 0.0))
            desk.log.write()
        desk.log.stop()

    def compact_all():
        while not done.is_set():
            compact(tmp_path)

    writers = [threading.Thread(target=observe, args=each) for each in enumerate(desks)]
    compactors = [threading.Thread(target=compact_all) for _ in range(2)]
    (tmp_path / JOURNAL).mkdir()
    for thread in (*writers, *compactors):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in compactors:
        thread.join()
    compact(tmp_path)
    found = table(tmp_path, "toy")
    for number in range(2):
        rows = found[found["client"] == f"c{number}"]
        assert rows["step"].tolist() == list(range(1, 301))
        assert rows["a"].tolist() == list(range(300))
    assert [desk.counts.lost for desk in desks] == [0, 0]


# Forks a compaction per moment and kills it right before its k-th call that changes the disk, or right after it opened
# a file to write, for each k in turn; the production code has no hooks.
KILLER = """
import io, os, pathlib, signal, sys
from pathlib import Path
from tests.service.observed.test_log import LoggedDesk
from tests.training.observing import DAY, NOON, block, journal
import training.compact
from training.compact import compact

def die_at(moment):
    count = 0
    def tick(name):
        nonlocal count
        count += 1
        if count == moment:
            os.write(2, f"{name}\\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
    def wrap(name, real):
        def call(*args, **kwargs):
            tick(name)
            return real(*args, **kwargs)
        return call
    io_open = io.open
    def opening(*args, **kwargs):
        file = io_open(*args, **kwargs)
        if "w" in str(args[1:2]):
            tick("opened")
        return file
    io.open = opening
    for name in ("mkdir", "fsync", "rename", "replace", "rmdir", "unlink"):
        setattr(os, name, wrap(name, getattr(os, name)))

training.compact.PART_ROWS, training.compact.BATCH_BYTES = 4, 300
moment = 0
while True:
    moment += 1
    folder = Path(sys.argv[1], str(moment))
    journal(folder, *(block(step, (float(step), 0.0)) for step in (1, 2, 3)))
    compact(folder)
    journal(folder, *(block(step, (float(step), 0.0)) for step in (3, 4, 5, 6)))
    journal(folder, block(2, (2.5, 0.0), absorbed=NOON + 3000), block(7, (7.0, 0.0), absorbed=NOON + DAY))
    journal(folder, block(1, (1.0, 0.0), client="b"), closed=False)
    pid = os.fork()
    if pid == 0:
        die_at(moment)
        compact(folder, keep_bytes=10**9)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        break
print(moment)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A log for every moment at which its compaction was killed, and the calls it was killed at."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", KILLER, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = done.stderr.split()
    assert len(calls) == int(done.stdout) - 1
    return calls, [folder / str(moment) for moment in range(1, int(done.stdout))]


def test_a_kill_at_any_moment_neither_loses_nor_doubles_a_row(killed):
    calls, folders = killed
    assert {"opened", "fsync", "replace", "unlink", "mkdir", "rename"} <= set(calls)
    expected = [("a", 1, 1.0), ("a", 2, 2.5), *(("a", step, float(step)) for step in range(3, 8)), ("b", 1, 1.0)]
    for call, folder in zip(calls, folders, strict=True):
        before = table(folder)
        assert not before.duplicated(["client", "begun", "step"]).any(), f"killed at {call}"
        assert {1, 2, 3} <= set(before["step"])
        compact(folder)
        assert brief(folder) == expected, f"killed at {call}"
        again = compact(folder)
        assert (again.rows, again.duplicates, again.journals) == (0, 0, 0)
        assert not [path for path in folder.rglob("*") if path.suffix == ".new"]
