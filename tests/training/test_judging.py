"""The job a version is judged again by."""

import pytest

from models.manifest import Residuals
from tests.training.closed import job, manifest
from training.judging import job_of
from training.refusals import TrainingError

LEVELS = (0.05, 0.5, 0.95)


def test_a_version_without_a_job_is_judged_as_far_ahead_as_it_was(tmp_path):
    residuals = Residuals(levels=LEVELS, quantiles=(((-1.0, 0.0, 1.0),),) * 3)
    assert job_of(manifest(residuals=residuals), tmp_path / "a.csv").horizon == 3


@pytest.mark.parametrize("made_by", [None, job().model_dump(mode="json")])
def test_the_columns_of_another_file_may_be_named(tmp_path, made_by):
    found = job_of(manifest(job=made_by), tmp_path / "a.csv", "when", "pump").source
    assert (found.file, found.time, found.series) == (tmp_path / "a.csv", "when", "pump")
    assert job_of(manifest(job=made_by), tmp_path / "a.csv").source.time == "time"


def test_columns_without_a_file_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="--data"):
        job_of(manifest(job=job().model_dump(mode="json")), None, "when")


@pytest.mark.parametrize("source", ["observations", {"sql": {"url_env": "PLANT_URL", "query": "SELECT 1"}}])
def test_a_version_made_from_no_file_is_judged_by_its_source_or_by_a_file(tmp_path, source):
    made_by = job().model_dump(mode="json") | {"source": source}
    assert job_of(manifest(job=made_by), None).source.path is None
    found = job_of(manifest(job=made_by), tmp_path / "a.csv").source
    assert found.file == tmp_path / "a.csv"
    assert found.sql is None
    assert found.observations is None
