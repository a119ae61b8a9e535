"""The real service with its log: a clean stop loses nothing, a killed worker leaves what it had written."""

import requests

from models.journal import Damage, read
from models.journals import JOURNAL, complete_journals
from tests.conftest import SINGLE, TRIPLE
from tests.serving import running_service, wait_until
from training.intake import gather
from training.job import Job

FROM_LOG = {"observations": {"shortest": 1}}


def logged(folder):
    """Every row of the complete journals: (model, client, step, values)."""
    rows = []
    for path in complete_journals(folder / JOURNAL):
        rows += [(r.logged.model, r.client, r.step, list(r.values)) for r in read(path.read_bytes(), Damage())]
    return rows


def test_a_clean_stop_loses_nothing_and_a_kill_no_more_than_was_not_written(tiny_repository, tmp_path, monkeypatch):
    state, folder = f"sqlite:///{tmp_path / 'state'}", tmp_path / "observations"
    settings = {"log_observations": SINGLE, "observations_dir": folder}
    with running_service(tiny_repository, state, 2, **settings) as service, requests.Session() as session:
        url = f"{service.url}/v1/models"

        def send(model, client, *values):
            answer = session.post(f"{url}/{model}/clients/{client}/predict", json={"observations": list(values)})
            assert answer.status_code == 200, answer.text

        for step in range(60):
            send(SINGLE, f"c{step % 3}", float(step))
        send(TRIPLE, "c0", [1.0, 2.0, 3.0])
        assert service.terminate() == 0
    expected = {(SINGLE, f"c{step % 3}", step // 3 + 1, (float(step),)) for step in range(60)}
    assert {(*row[:3], tuple(row[3])) for row in logged(folder)} == expected
    assert len(logged(folder)) == 60

    monkeypatch.setenv("RECURVE_OBSERVATIONS_DIR", str(folder))
    features = [{"name": "temperature"}]
    pump = Job.model_validate({"name": SINGLE, "source": FROM_LOG, "features": features, "targets": features})
    gathered = gather(pump, None)
    assert {each.id: each.values[:, 0].tolist() for each in gathered.series} == {
        f"c{k}": [float(step) for step in range(k, 60, 3)] for k in range(3)
    }

    with running_service(tiny_repository, state, 1, **settings) as service, requests.Session() as session:
        url = f"{service.url}/v1/models"
        send(SINGLE, "c0", 1.0, 2.0)

        def written():
            return "recurve_observations_logged_total 2.0" in session.get(f"{service.url}/metrics").text

        wait_until(written, 120, "the rows are written")
        service.kill_group()
    wait_until(lambda: len(logged(folder)) == 1, 120, "the killed worker's journal is nobody's")
    assert gather(pump, None).series[0].values[-3:, 0].tolist() == [57.0, 1.0, 2.0]
