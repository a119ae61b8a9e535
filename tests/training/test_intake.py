"""What is new since the last time: from files, databases and the observation log, late and double rows and all."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from tests.training.observing import NOON, PUMP, block, journal
from tests.training.postgres import running_postgres
from training import files as files_module
from training import sql as sql_module
from training.batch import SourceInvalid
from training.intake import gather
from training.job import Job
from training.sources import load_series

ROOT = Path(__file__).parents[2]
HOUR = 3600.0


def job(source, *, features=("flow", "heat"), name="pump", **more):
    return Job.model_validate(
        {
            "name": name,
            "source": source,
            "features": [{"name": each} for each in features],
            "targets": [{"name": features[0]}],
            **more,
        }
    )


def rows(*hours, pump="a", scale=1.0):
    """Rows of a table: one for each hour since 2024, its flow the hour."""
    return pd.DataFrame(
        {
            "pump": pump,
            "time": [1704067200 + 3600 * hour for hour in hours],
            "flow": [scale * hour for hour in hours],
            "heat": 1.0,
        }
    )


def flows(gathered):
    return {series.id: series.values[:, 0].tolist() for series in gathered.series}


def counts(gathered):
    return gathered.new_rows, gathered.late_rows, gathered.duplicates, gathered.gaps


def same(a, b):
    """The same series, to the bit."""
    assert [each.id for each in a] == [each.id for each in b]
    for one, other in zip(a, b, strict=True):
        assert one.times.tolist() == other.times.tolist()
        assert one.values.tobytes() == other.values.tobytes()
    return True


@pytest.fixture
def parsed(monkeypatch):
    """How many rows were parsed from CSV and Parquet, reading by reading."""
    read = []
    for name in ("read_csv", "read_parquet"):
        real = getattr(pd, name)

        def counted(*args, real=real, **more):
            table = real(*args, **more)
            read.append(len(table))
            return table

        monkeypatch.setattr(files_module.pd, name, counted)
    return read


def test_a_grown_csv_is_read_on_from_where_it_ended(tmp_path, parsed):
    path, cache = tmp_path / "pumps.csv", tmp_path / "cache"
    pumps = job({"path": str(path), "series": "pump"}, interval_s=HOUR)
    pd.concat([rows(1, 2, 3), rows(1, 2, pump="b")]).to_csv(path, index=False)
    assert counts(gather(pumps, cache)) == (5, 0, 0, 0)
    assert counts(gather(pumps, cache)) == (0, 0, 0, 0)
    # one in order, one with a step missing before it, one late and one that corrects
    pd.concat([rows(4, 6), rows(0, pump="b"), rows(2, scale=10.0)]).to_csv(path, mode="a", header=False, index=False)
    found = gather(pumps, cache)
    assert counts(found) == (3, 1, 1, 1)
    assert flows(found) == {"a": [1, 20, 3, 4, 6], "b": [0, 1, 2]}
    assert parsed == [5, 4]
    assert same(found.series, gather(pumps, None).series)


def test_without_a_cache_files_are_as_load_series_has_them(tmp_path):
    path = tmp_path / "pump.csv"
    table = pd.concat([rows(*range(5, 50)), rows(*range(3, 50), pump="b"), rows(*range(50), pump="0")])
    table.sort_values("time", kind="stable").to_csv(path, index=False)
    pumps = job({"path": str(path), "series": "pump"})
    assert [each.id for each in load_series(pumps)] == ["0", "b", "a"]
    assert same(gather(pumps, None).series, load_series(pumps))


def test_a_csv_whose_past_changed_is_read_whole(tmp_path, parsed):
    path, cache = tmp_path / "pump.csv", tmp_path / "cache"
    pump = job({"path": str(path)})
    rows(1, 2, 3).to_csv(path, index=False)
    gather(pump, cache)
    path.write_text(path.read_text().replace("2.0", "7.0") + rows(4).to_csv(header=False, index=False))
    found = gather(pump, cache)
    assert flows(found) == {"pump": [1, 7, 3, 4]}
    assert counts(found)[:3] == (1, 0, 1)
    rows(8, 9).to_csv(path, index=False)
    assert flows(gather(pump, cache)) == {"pump": [8, 9]}
    assert parsed == [3, 4, 2]


def test_a_line_that_is_still_being_written_is_read_again(tmp_path):
    path, cache = tmp_path / "pump.csv", tmp_path / "cache"
    pump = job({"path": str(path)})
    whole = rows(1, 2).to_csv(index=False)
    assert whole.endswith("2.0,1.0\n")
    path.write_text(whole[:-3])
    assert gather(pump, cache).series[0].values[-1].tolist() == [2.0, 1.0]
    path.write_text(whole[:-1] + "5\n" + rows(3).to_csv(header=False, index=False))
    found = gather(pump, cache)
    assert found.series[0].values.tolist() == [[1.0, 1.0], [2.0, np.float32(1.05)], [3.0, 1.0]]
    assert counts(found)[:3] == (1, 0, 1)


def test_a_compressed_csv_is_read_when_it_has_changed(tmp_path, parsed):
    path, cache = tmp_path / "pump.csv.gz", tmp_path / "cache"
    pump = job({"path": str(path)})
    for hours in ((1, 2), (1, 2, 3)):
        path.write_bytes(gzip.compress(rows(*hours).to_csv(index=False).encode()))
        assert gather(pump, cache).new_rows == (2 if len(hours) == 2 else 1)
        assert gather(pump, cache).new_rows == 0
    assert parsed == [2, 3]


def test_new_files_of_a_parquet_folder_are_read_and_a_vanished_one_is_forgotten(tmp_path, parsed):
    folder, cache = tmp_path / "pumps", tmp_path / "cache"
    pumps = job({"path": str(folder)})
    folder.mkdir()
    rows(1, 2).to_parquet(folder / "1.parquet")
    gather(pumps, cache)
    rows(0, 3, 4).to_parquet(folder / "2.parquet")
    found = gather(pumps, cache)
    assert (flows(found), counts(found)[:3]) == ({"pump": [0, 1, 2, 3, 4]}, (3, 1, 0))
    assert parsed == [2, 3]
    (folder / "1.parquet").unlink()
    assert flows(gather(pumps, cache)) == {"pump": [0, 3, 4]}
    assert gather(pumps, cache).new_rows == 0


def test_a_folder_without_parquet_says_so(tmp_path):
    with pytest.raises(SourceInvalid, match=r"without a \.parquet"):
        gather(job({"path": str(tmp_path)}), None)


def test_a_cache_of_another_job_or_a_damaged_one_is_not_used(tmp_path):
    path, cache = tmp_path / "pump.csv", tmp_path / "cache"
    rows(1, 2, 3).to_csv(path, index=False)
    gather(job({"path": str(path)}), cache)
    assert gather(job({"path": str(path)}, features=("heat",)), cache).new_rows == 3
    (cache / "rows.parquet").write_bytes(b"PAR1 no PAR1")
    assert gather(job({"path": str(path)}), cache).new_rows == 3


def test_a_refused_reading_leaves_the_cache_as_it_was(tmp_path):
    path, cache = tmp_path / "pump.csv", tmp_path / "cache"
    pump = job({"path": str(path)}, features=("flow",))
    rows(1, 2, 3).to_csv(path, index=False)
    gather(pump, cache)
    before, text = (cache / "rows.parquet").read_bytes(), path.read_text()
    path.write_text(text + "a,1704081600,,1.0\n")
    for _ in range(2):
        with pytest.raises(SourceInvalid, match="without a finite value"):
            gather(pump, cache)
    assert (cache / "rows.parquet").read_bytes() == before
    path.write_text(text + rows(4).to_csv(header=False, index=False))
    assert counts(gather(pump, cache))[:3] == (1, 0, 0)


# -- databases -----------------------------------------------------------------------------------------------------

TIMES = {
    "timestamptz": lambda hour: f"'2024-01-01T00:00:00+00:00'::timestamptz + interval '{hour} hours'",
    "timestamp": lambda hour: f"'2024-01-01T00:00:00'::timestamp + interval '{hour} hours'",
    "double precision": lambda hour: f"{1704067200 + 3600 * hour}",
    "bigint": lambda hour: f"{1704067200 + 3600 * hour}",
    "date": lambda hour: f"'2024-01-01'::date + {hour}",
    "text": lambda hour: f"'2024-01-{hour + 1:02d}T12:00:00Z'",
}


@pytest.fixture(scope="module")
def postgres():
    with running_postgres() as url:
        yield url


@pytest.fixture
def asked(monkeypatch):
    """How many rows each query brought."""
    found, real = [], pd.read_sql

    def counted(*args, **more):
        table = real(*args, **more)
        found.append(len(table))
        return table

    monkeypatch.setattr(sql_module.pd, "read_sql", counted)
    return found


def check_incremental(cache, execute, value, asked, overlap_s):
    """What is asked of every database and every kind of time: only what is new or may be late is read."""
    query = "SELECT pump, at, flow, heat FROM readings WHERE flow <> -1;"
    pumps = job(
        {"sql": {"url_env": "PUMPS_URL", "query": query, "overlap_s": overlap_s}, "time": "at", "series": "pump"}
    )

    def insert(pump, hour, flow):
        execute(f"INSERT INTO readings VALUES ('{pump}', {value(hour)}, {flow}, 1.5)")

    for hour in (0, 1, 2, 3, 4, 6, 7, 8, 9):
        insert("a", hour, hour)
    insert("a", 10, -1)
    assert counts(gather(pumps, cache))[:3] == (9, 0, 0)
    insert("a", 10, 10)
    insert("a", 5, 5)  # too late: out of the overlap
    execute(f"UPDATE readings SET flow = 70 WHERE at = {value(7)}")
    insert("b", 9, 900)
    found = gather(pumps, cache)
    assert asked[0] == 9
    assert asked[1] < 9, "only the end of it is read again"
    assert flows(found) == {"a": [0, 1, 2, 3, 4, 6, 70, 8, 9, 10], "b": [900]}
    assert counts(found)[:3] == (2, 0, 1)
    execute(f"UPDATE readings SET pump = 'a', flow = 85, at = {value(8)} WHERE pump = 'b'")
    execute("DELETE FROM readings WHERE pump = 'a' AND flow = 8")
    again = gather(pumps, cache)
    assert flows(again)["a"] == [0, 1, 2, 3, 4, 6, 70, 85, 9, 10]
    assert counts(gather(pumps, cache)) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", TIMES)
def test_postgresql_is_asked_for_what_is_new_whatever_its_times_are(postgres, tmp_path, monkeypatch, asked, kind):
    monkeypatch.setenv("PUMPS_URL", postgres)
    engine = sqlalchemy.create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"))

    def execute(text):
        with engine.begin() as connection:
            connection.exec_driver_sql(text)

    execute("DROP TABLE IF EXISTS readings")
    execute(f"CREATE TABLE readings (pump text, at {kind}, flow numeric, heat real)")
    overlap_s = 1.5 * 86400 if kind in ("date", "text") else 2.5 * HOUR
    try:
        check_incremental(tmp_path / "cache", execute, TIMES[kind], asked, overlap_s)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("REAL", lambda hour: f"{1704067200 + 3600 * hour}"),
        ("TEXT", lambda hour: f"'2024-01-{hour + 1:02d} 12:00:00'"),
        ("TEXT", lambda hour: f"'2024-01-{hour + 1:02d}T12:00:00+02:00'"),
        ("TEXT", lambda hour: f"'2024-01-{hour + 1:02d}'"),
    ],
)
def test_sqlite_is_asked_for_what_is_new_whatever_its_times_are(tmp_path, monkeypatch, asked, kind, value):
    url = f"sqlite:///{tmp_path}/pumps.db"
    monkeypatch.setenv("PUMPS_URL", url)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def execute(text):
        with engine.begin() as connection:
            connection.exec_driver_sql(text)

    execute(f"CREATE TABLE readings (pump TEXT, at {kind}, flow REAL, heat REAL)")
    overlap_s = 1.5 * 86400 if kind == "TEXT" else 2.5 * HOUR
    check_incremental(tmp_path / "cache", execute, value, asked, overlap_s)


def test_a_query_that_can_be_asked_but_not_for_its_end_is_asked_whole_again(tmp_path, asked):
    url = f"sqlite:///{tmp_path}/pumps.db"
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    pumps = job({"sql": {"url": url, "query": "SELECT * FROM readings; -- all of them"}, "series": "pump"})
    rows(*range(3)).to_sql("readings", engine, index=False)
    gather(pumps, tmp_path / "cache")
    rows(3).to_sql("readings", engine, index=False, if_exists="append")
    found = gather(pumps, tmp_path / "cache")
    assert (flows(found), counts(found)) == ({"a": [0, 1, 2, 3]}, (1, 0, 0, 0))
    assert asked == [3, 4]


def test_a_row_from_a_clock_that_is_ahead_does_not_hide_those_that_come_after_it(tmp_path):
    url = f"sqlite:///{tmp_path}/pumps.db"
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    query = {"url": url, "query": "SELECT * FROM readings", "overlap_s": HOUR}
    pumps = job({"sql": query, "series": "pump"})

    def insert(pump, *hours):
        rows(*hours, pump=pump).to_sql("readings", engine, index=False, if_exists="append")

    insert("a", *range(10))
    insert("wrong", 24 * 365 * 200)
    gather(pumps, tmp_path / "cache")
    insert("a", 10, 11)
    assert flows(gather(pumps, tmp_path / "cache"))["a"] == [*range(12)]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ({"url_env": "NOT_SET_HERE", "query": "SELECT 1"}, "NOT_SET_HERE"),
        ({"url": "sqlite:////nowhere/at/all.db", "query": "SELECT 1"}, "unable to open"),
        ({"url": "sqlite://", "query": "SELEKT 1"}, "SELEKT"),
        ({"url": "no url", "query": "SELECT 1"}, "no such database"),
        ({"url": "oracle+nodriver://x", "query": "SELECT 1"}, "no such database"),
        ({"url": "sqlite://", "query": "SELECT 1 AS flow"}, "no column 'time'"),
    ],
)
def test_a_query_that_can_not_be_asked_says_why(sql, named):
    with pytest.raises(SourceInvalid, match=named):
        gather(job({"sql": sql}), None)


def test_a_password_is_refused_in_a_job():
    for url in (
        "postgresql://me:secret@db/pumps",
        "postgresql://me:sec/ret@db/pumps",
        "postgresql://db/pumps?user=me&password=secret",
        "mysql://db/pumps?user=me&passwd=secret",
    ):
        with pytest.raises(ValueError, match="password") as refused:
            job({"sql": {"url": url, "query": "SELECT 1"}})
        assert "url_env" in str(refused.value)


@pytest.mark.parametrize("source", [{}, {"path": "a.csv", "observations": {}}, {"sql": {"query": "SELECT 1"}}])
def test_a_source_that_is_none_or_two_is_refused(source):
    with pytest.raises(ValueError, match="give"):
        job(source)


# -- the observation log -------------------------------------------------------------------------------------------


def test_the_log_is_a_source_and_only_new_parts_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("RECURVE_OBSERVATIONS_DIR", str(tmp_path / "log"))
    pump = job("observations", interval_s=60.0)
    short = job({"observations": {"shortest": 3}}, interval_s=60.0)
    journal(
        tmp_path / "log", *(block(step, (float(step), 0.0)) for step in range(1, 6)), block(1, (9.0, 9.0), client="b")
    )
    cache = tmp_path / "cache"
    found = gather(short, cache)
    assert flows(found) == {"a": [1, 2, 3, 4, 5]}
    assert counts(found) == (6, 0, 0, 0)
    assert found.left_out == 1
    assert found.series[0].times.tolist() == [NOON + 60 * step for step in range(1, 6)]
    journal(tmp_path / "log", block(7, (7.0, 0.0)), block(2, (2.0, 2.0), (3.0, 3.0), client="b"))
    journal(tmp_path / "log", block(5, (5.5, 0.0), absorbed=NOON + 9000), block(1, (1.0, 0.0), tenant="other"))
    found = gather(short, cache)
    assert flows(found) == {"a": [1, 2, 3, 4, 5.5, 7], "b": [9, 2, 3]}
    assert counts(found) == (4, 0, 1, 1)
    assert same(found.series, gather(short, None).series)
    assert same(found.series, load_series(short))
    with pytest.raises(SourceInvalid, match="shortest"):
        gather(pump, cache)


def test_another_log_is_none_of_the_first_ones_rows(tmp_path, monkeypatch):
    pump = job({"observations": {"shortest": 1}})
    journal(tmp_path / "staging", block(1, (1.0, 0.0)))
    journal(tmp_path / "real", block(1, (5.0, 0.0), client="b"), block(2, (6.0, 0.0), client="b"))
    monkeypatch.setenv("RECURVE_OBSERVATIONS_DIR", str(tmp_path / "staging"))
    assert flows(gather(pump, tmp_path / "cache")) == {"a": [1]}
    monkeypatch.setenv("RECURVE_OBSERVATIONS_DIR", str(tmp_path / "real"))
    assert flows(gather(pump, tmp_path / "cache")) == {"b": [5, 6]}


def test_a_client_that_began_anew_goes_on_in_time(tmp_path):
    source = {"observations": {"dir": str(tmp_path), "shortest": 1}}
    later = [NOON + 600.0, NOON + 660.0]
    journal(
        tmp_path,
        block(1, (1.0, 0.0), (2.0, 0.0)),
        block(1, (3.0, 0.0), (4.0, 0.0), begun=NOON + 500, times=later, absorbed=NOON + 700),
    )
    assert flows(gather(job(source), None)) == {"a": [1, 2, 3, 4]}


def test_a_client_that_keeps_no_time_does_not_stop_the_others(tmp_path):
    source = {"observations": {"dir": str(tmp_path), "shortest": 2}}
    seldom = [NOON, NOON + 150, NOON + 300]
    three = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]
    journal(tmp_path, block(1, *three, client="seldom", times=seldom))
    with pytest.raises(SourceInvalid, match="about 60 s apart"):
        gather(job(source, interval_s=60.0), None)
    journal(tmp_path, block(1, *three))
    found = gather(job(source, interval_s=60.0), None)
    assert flows(found) == {"a": [1, 2, 3]}
    assert found.left_out == 1
    assert len(gather(job(source), None).series) == 2


def test_times_of_the_services_clock_are_no_intervals(tmp_path):
    source = {"observations": {"dir": str(tmp_path), "shortest": 1}}
    together = [(float(i), 0.0) for i in range(5)]
    journal(tmp_path, block(1, *together, times=None), block(6, (5.0, 0.0), times=None, absorbed=NOON + 5000))
    found = gather(job(source, interval_s=60.0), None)
    assert flows(found) == {"a": [0, 1, 2, 3, 4, 5]}
    assert found.gaps == 0


def test_a_day_that_was_dropped_from_the_log_is_forgotten(tmp_path):
    from training.compact import compact

    log, cache = tmp_path / "log", tmp_path / "cache"
    pump = job({"observations": {"dir": str(log), "shortest": 1}})
    journal(log, block(1, (1.0, 0.0)), block(2, (2.0, 0.0), absorbed=NOON + 86400))
    assert flows(gather(pump, cache)) == {"a": [1, 2]}
    compact(log, keep_days=0.5, now=lambda: NOON + 86400)
    assert flows(gather(pump, cache)) == {"a": [2]}


def test_a_log_that_is_not_there_or_of_another_model_says_so(tmp_path):
    source = {"observations": {"dir": str(tmp_path / "none")}}
    with pytest.raises(SourceInvalid, match="--log-observations"):
        gather(job(source), None)
    journal(tmp_path / "none", block(1, (1.0, 0.0)))
    with pytest.raises(SourceInvalid, match="nothing is logged of mill"):
        gather(job(source, name="mill"), None)
    with pytest.raises(SourceInvalid, match="humidity"):
        gather(job(source, features=("flow", "humidity")), None)
    assert PUMP.features == ("flow", "heat")


# -- kills -----------------------------------------------------------------------------------------------------------

KILLER = """
import io, json, os, signal, sys
from pathlib import Path
from tests.training.test_intake import counts, flows, job, rows
from training.intake import gather

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
    for name in ("mkdir", "fsync", "replace", "unlink"):
        setattr(os, name, wrap(name, getattr(os, name)))

moment = 0
while True:
    moment += 1
    folder = Path(sys.argv[1], str(moment))
    folder.mkdir()
    path = folder / "pump.csv"
    pump = job({"path": str(path)})
    rows(1, 2, 3).to_csv(path, index=False)
    if moment % 2:
        gather(pump, folder / "cache")
    rows(4, 0).to_csv(path, mode="a", header=False, index=False)
    pid = os.fork()
    if pid == 0:
        die_at((moment + 1) // 2)
        gather(pump, folder / "cache")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    found = gather(pump, folder / "cache")
    print(json.dumps([flows(found), counts(found), os.WIFEXITED(status)]))
    if os.WIFEXITED(status) and moment > 12:
        break
"""


def test_a_kill_at_any_moment_leaves_a_cache_that_goes_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", KILLER, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"opened", "fsync", "replace"} <= set(done.stderr.split())
    for gathered, (new, _, duplicates, _), _ in found:
        assert gathered == {"pump": [0, 1, 2, 3, 4]}
        assert duplicates == 0
        assert new in (0, 2, 5)  # what the killed run kept, or what the one before did
