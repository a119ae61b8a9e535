"""Series from files as people have them."""

import numpy as np
import pandas as pd
import pytest

from training.batch import SourceInvalid
from training.job import Job, load_job
from training.sources import load_series


def job(path, **source):
    features = source.pop(
        "features", [{"name": "flow", "unit": "l/s"}, {"name": "heat", "column": "T", "unit": "degC"}]
    )
    return Job.model_validate(
        {
            "name": "mill",
            "source": {"path": str(path), **source},
            "features": features,
            "targets": [{"name": features[0]["name"]}],
        }
    )


def table(**columns):
    known = {"time": ["2024-01-01T00", "2024-01-01T01", "2024-01-01T02"], "T": [7.0, 8.0, 9.0], "flow": [1.0, 2.0, 3.0]}
    return pd.DataFrame({**known, **columns})


@pytest.fixture
def csv(tmp_path):
    def write(**columns):
        path = tmp_path / "mill.csv"
        table(**columns).to_csv(path, index=False)
        return path

    return write


def test_features_come_in_the_jobs_order_under_their_own_names(csv):
    (series,) = load_series(job(csv()))
    assert series.id == "mill"
    assert series.values.dtype == np.float32
    assert series.values.tolist() == [[1, 7], [2, 8], [3, 9]]
    assert series.times.tolist() == [1704067200.0, 1704070800.0, 1704074400.0]


@pytest.mark.parametrize(
    "times",
    [
        [1704067200, 1704070800, 1704074400],
        [1704067200.0, 1704070800.0, 1704074400.0],
        ["2024-01-01T01:00:00+01:00", "2024-01-01T02:00:00+01:00", "2024-01-01T03:00:00+01:00"],
        ["2024-01-01 00:00:00", "2024-01-01 01:00:00", "2024-01-01 02:00:00"],
    ],
)
def test_epoch_seconds_offsets_and_spaces_all_mean_the_same_times(csv, times):
    assert load_series(job(csv(time=times)))[0].times.tolist() == [1704067200.0, 1704070800.0, 1704074400.0]


def test_parquet_gives_the_same_series_as_csv(csv, tmp_path):
    frame = table()
    frame["time"] = pd.to_datetime(frame["time"])
    frame.to_parquet(tmp_path / "mill.parquet")
    (a,), (b,) = load_series(job(csv())), load_series(job(tmp_path / "mill.parquet"))
    assert a.times.tolist() == b.times.tolist()
    assert a.values.tolist() == b.values.tolist()


def test_one_file_holds_many_clients_even_if_their_rows_are_interleaved(csv):
    path = csv(time=[1, 1, 2], pump=["b", "a", "b"])
    assert [(each.id, each.values[:, 0].tolist()) for each in load_series(job(path, series="pump"))] == [
        ("b", [1, 3]),
        ("a", [2]),
    ]
    assert [each.id for each in load_series(job(path, series="pump", only=["a"]))] == ["a"]
    with pytest.raises(SourceInvalid, match=r"'c'.*'pump'"):
        load_series(job(path, series="pump", only=["c"]))


@pytest.mark.parametrize("gone", [None, np.inf, -np.inf])
def test_a_row_without_a_value_stops_the_job_or_is_left_out_as_it_says(csv, gone):
    path = csv(flow=[1.0, gone, 3.0])
    with pytest.raises(SourceInvalid, match=r"1 rows .* 2024-01-01T01 for flow"):
        load_series(job(path))
    assert load_series(job(path, missing="drop"))[0].values.tolist() == [[1, 7], [3, 9]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"flow": ["a", "b", "c"]}, "'flow'.*not a number"),
        ({"time": ["soon", "later", "never"]}, "'time'.*ISO 8601"),
        ({"time": [None, "2024-01-01T01", "2024-01-01T02"]}, "empty times"),
        ({"time": [1.0, None, 3.0]}, "empty times"),
        ({"time": [1.0, np.inf, 3.0]}, "empty times"),
        ({"time": [3, 2, 1]}, "row 2 is not after row 1"),
        ({"time": [1, 1, 2]}, "times must rise"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(csv, columns, message):
    with pytest.raises(SourceInvalid, match=message):
        load_series(job(csv(**columns)))


def test_an_absent_column_is_named_beside_those_that_exist(csv):
    with pytest.raises(SourceInvalid, match=r"no column 'humidity'; it has time, T, flow"):
        load_series(job(csv(), features=[{"name": "humidity"}]))


def test_an_absent_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(SourceInvalid, match=r"none\.csv: cannot be read"):
        load_series(job(tmp_path / "none.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(SourceInvalid, match=r"bad\.parquet: is not parquet"):
        load_series(job(tmp_path / "bad.parquet"))


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-20], lambda b: b[:30] + bytes([b[30] ^ 255]) + b[31:], lambda b: b[:3]]
)
def test_a_damaged_or_truncated_archive_is_named(tmp_path, spoil):
    whole = tmp_path / "whole.csv.gz"
    table(time=list(range(3))).to_csv(whole, index=False)
    (tmp_path / "bad.csv.gz").write_bytes(spoil(whole.read_bytes()))
    with pytest.raises(SourceInvalid, match=r"bad\.csv\.gz: (is damaged|cannot be read|is not csv)"):
        load_series(job(tmp_path / "bad.csv.gz"))


@pytest.mark.parametrize("source", [{}, {"series": "pump"}])
def test_a_file_of_a_header_alone_has_no_rows(tmp_path, source):
    (tmp_path / "mill.csv").write_text("time,flow,T,pump\n")
    with pytest.raises(SourceInvalid, match="no rows"):
        load_series(job(tmp_path / "mill.csv", **source))


def test_rows_that_name_no_series_are_refused_and_do_not_vanish(csv):
    with pytest.raises(SourceInvalid, match="1 rows have no series in column 'pump'"):
        load_series(job(csv(pump=["a", None, "a"]), series="pump"))


def test_data_at_another_interval_than_the_jobs_is_refused_and_a_gap_is_not(csv):
    hourly = job(csv()).model_copy(update={"interval_s": 3600.0})
    assert len(load_series(hourly)[0]) == 3
    csv(time=[60, 120, 180])
    with pytest.raises(SourceInvalid, match="every 60 s, but interval_s is 3600"):
        load_series(hourly)
    longer = pd.DataFrame({"time": [0, 3600, 7201, 90_000, 93_599], "T": 1.0, "flow": 2.0})
    longer.to_csv(hourly.source.file, index=False)
    assert len(load_series(hourly)[0]) == 5


@pytest.mark.parametrize(("limits", "told"), [
    ({"minimum": 1.5}, r"1 values of flow outside 1\.5 to inf l/s, the first is 1"),
    ({"minimum": 0, "maximum": 1.5}, r"2 values of flow outside 0 to 1\.5 l/s, the first is 2"),
])  # fmt: skip
def test_values_outside_their_features_physical_limits_are_refused(csv, limits, told):
    with pytest.raises(SourceInvalid, match=told):
        load_series(job(csv(), features=[{"name": "flow", "unit": "l/s", **limits}]))
    inside = {"name": "flow", "minimum": 1.0, "maximum": 3.0}
    assert len(load_series(job(csv(), features=[inside]))[0]) == 3


def test_range_volatility_is_parkinsons_in_percent_and_zero_for_a_day_without_a_range(csv):
    features = [{"name": "volatility", "parkinson": ["T", "flow"]}]
    (series,) = load_series(job(csv(T=[101.0, 110.0, 50.0], flow=[100.0, 100.0, 50.0]), features=features))
    expected = [100 * np.sqrt(np.log(ratio) ** 2 / (4 * np.log(2))) for ratio in (1.01, 1.1, 1.0)]
    assert series.values[:, 0] == pytest.approx(expected, rel=1e-6)


def test_a_high_below_its_low_is_refused(csv):
    with pytest.raises(SourceInvalid, match="high >= low"):
        load_series(job(csv(), features=[{"name": "volatility", "parkinson": ["flow", "T"]}]))


def test_the_shipped_series_are_whole():
    (sensor,) = load_series(load_job("sensor"))
    assert sensor.values.shape == (43824, 3)
    assert np.unique(np.diff(sensor.times)).tolist() == [3600.0]
    finance = load_series(load_job("finance"))
    assert [(each.id, len(each)) for each in finance] == [("IBM", 3270), ("MSFT", 3270), ("AAPL", 3270)]
    (eurusd,) = load_series(load_job("eurusd"))
    assert len(eurusd) == 7126
    assert eurusd.values[0, 0] == pytest.approx(1.1789)
