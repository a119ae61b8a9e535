"""Job files: what they mean, and what they say when they are wrong."""

import pytest

from training.job import JOBS, Job, JobInvalid, load_job

MINIMAL = """
name = "mill"
[source]
path = "mill.csv"
[[features]]
name = "flow"
unit = "l/s"
[[targets]]
name = "flow"
"""


def write(folder, text):
    path = folder / "mill.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["sensor", "finance", "eurusd"])
def test_every_shipped_job_loads_and_so_does_its_quick_variant(name):
    job = load_job(name)
    assert job.name == name
    assert job.source.file.exists()
    assert job.source.credit
    assert job.quickened().features == job.features


def test_the_sensor_job_is_hourly_and_predicts_its_three_features_in_order():
    job = load_job("sensor")
    names = [feature.name for feature in job.features]
    assert names == ["temperature", "dew_point", "pressure"]
    assert [target.name for target in job.targets] == names
    assert [feature.unit for feature in job.features] == ["degC", "degC", "hPa"]
    assert job.interval_s == 3600
    assert job.gates.rmse == {"temperature": 1.13}
    assert job.quickened().gates.rmse == {"temperature": 1.20}


def test_the_finance_job_is_one_model_for_three_clients_on_business_days():
    job = load_job("finance")
    assert job.source.only == ("IBM", "MSFT", "AAPL")
    assert job.interval_s is None
    assert job.gates.qlike_ratio == 1.03


def test_a_data_path_starts_at_the_job_file_and_no_absolute_path_is_dumped(tmp_path):
    job = load_job(write(tmp_path, MINIMAL))
    assert job.source.file == tmp_path / "mill.csv"
    assert job.quickened().source.file == tmp_path / "mill.csv"
    assert str(tmp_path) not in job.model_dump_json()


def test_limits_are_null_unless_the_job_names_them(tmp_path):
    (flow,) = load_job(write(tmp_path, MINIMAL)).features
    assert flow.minimum is None
    assert flow.maximum is None


def test_quick_replaces_the_keys_it_names_and_no_others(tmp_path):
    job = load_job(write(tmp_path, MINIMAL + "[fit]\nepochs = 9\nstreams = 7\n[quick.fit]\nepochs = 2\n"))
    assert (job.fit.epochs, job.fit.streams) == (9, 7)
    assert (job.quickened().fit.epochs, job.quickened().fit.streams) == (2, 7)


def test_a_dumped_job_is_a_job_again():
    job = load_job("finance")
    again = Job.model_validate(job.model_dump(mode="json"))
    assert again.model_dump() == job.model_dump()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('unit = "l/s"', "unit = 7", "features.0.unit"),
        ('unit = "l/s"', 'uint = "l/s"', "features.0.uint"),
        ('path = "mill.csv"', "", "source.path"),
        ('path = "mill.csv"', 'path = "mill.csv"\nonly = ["a"]', "series"),
        ('name = "mill"', 'name = "Mill!"', "name"),
        ('name = "mill"', 'name = "mill"\ninterval_s = 0', "interval_s"),
        ('name = "mill"', 'name = "mill"\ninterval_s = 1e-5', "interval_s"),
        ('name = "mill"', 'name = "mill"\ninterval_s = nan', "interval_s"),
        ('path = "mill.csv"', 'path = "mill.csv"\nseries = "pump"\nonly = []', "source.only"),
        ('name = "mill"', 'name = "mill"\narchitecture = "transformer"', "architecture"),
        ('name = "mill"', 'name = "mill"\nquantiles = [0.9, 0.1]', "quantiles"),
        ('name = "mill"', 'name = "mill"\n[gates]\nrmse = {heat = 1.0}', "gates.rmse"),
        ('name = "mill"', 'name = "mill"\n[gates]\nqlike_ratio = 1.03', "gates.qlike_ratio"),
        ('name = "mill"', 'name = "mill"\nquantiles = [0.5]\n[gates]\ncoverage = [0.8, 0.9]', "gates.coverage"),
        ('name = "mill"', 'name = "mill"\n[fit]\nepochs = "many"', "fit.epochs"),
        ('name = "mill"', 'name = "mill"\n[quick.fit]\nepochs = -1', "fit.epochs"),
        ('unit = "l/s"', 'unit = "l/s"\nlog = true', "floor"),
        ('unit = "l/s"', 'unit = "l/s"\nminimum = 3\nmaximum = 2', "minimum"),
        ('unit = "l/s"', 'unit = "l/s"\ncolumn = "a"\nparkinson = ["h", "l"]', "column"),
        ('[[targets]]\nname = "flow"', '[[targets]]\nname = "heat"', "heat"),
        ('[[targets]]\nname = "flow"', '[[targets]]\nname = "flow"\nloss = "qlike"', "qlike"),
        ('[[targets]]\nname = "flow"', '[[targets]]\nname = "flow"\n[[targets]]\nname = "flow"', "targets"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, old, new, named):
    assert old in MINIMAL
    path = write(tmp_path, MINIMAL.replace(old, new, 1))
    with pytest.raises(JobInvalid) as caught:
        load_job(path)
    assert any(named in problem for problem in caught.value.problems)
    assert str(path) in str(caught.value)


def test_every_wrong_field_is_named_at_once(tmp_path):
    text = MINIMAL.replace('unit = "l/s"', "unit = 7").replace('name = "mill"', 'name = "mill"\nhorizon = 0')
    with pytest.raises(JobInvalid) as caught:
        load_job(write(tmp_path, text))
    assert len(caught.value.problems) == 2


def test_an_unknown_name_says_which_jobs_there_are():
    with pytest.raises(JobInvalid, match="eurusd, finance, sensor"):
        load_job("snesor")


def test_a_file_that_is_not_toml_says_where(tmp_path):
    with pytest.raises(JobInvalid, match="line 2"):
        load_job(write(tmp_path, 'name = "a"\nthis is not toml'))


def test_shipped_jobs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_job("sensor") == load_job(JOBS / "sensor.toml")
