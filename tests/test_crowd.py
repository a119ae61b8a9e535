"""The benchmark's crowd: a store filled in bulk is a store like any other."""

from __future__ import annotations

import contextlib
import sqlite3
import time

from benchmarks import crowd
from models.repository import Repository
from service.bootstrap import build
from service.settings import Settings
from service.stores.sqlite_folder import SHARDS, shard_file
from tests.training.bundles import make_tiny_bundle

PATH = f"/v1/models/{crowd.NAME}/clients"


def test_clients_filled_in_bulk_go_on_as_if_they_had_come_one_by_one(tmp_path):
    repository = Repository(tmp_path / "models")
    with repository.stage(crowd.NAME) as staging:
        repository.publish(staging, make_tiny_bundle(staging, name=crowd.NAME))
    written = []
    records = crowd.templates(tmp_path / "models")
    crowd.fill(tmp_path / "state", records, 500, time.time(), 5, written.append)
    assert sum(written) == 2 * 500
    for number in range(SHARDS):
        with contextlib.closing(sqlite3.connect(shard_file(tmp_path / "state", number))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    service = build(Settings(models_dir=tmp_path / "models", state_url=f"sqlite:///{tmp_path}/state"))
    try:
        http = service.app.test_client()
        listed = http.get(f"{PATH}?limit=1000").get_json()["clients"]
        assert set(listed) == {crowd.CLIENT.format(n) for n in range(500)}
        body = {"observation": [12.0, 3.0, 1013.0], "step": crowd.HISTORY + 1}
        states = [http.post(f"{PATH}/{name}/predict", json=body).get_json()["state"] for name in listed]
    finally:
        service.close()
    assert sum(state["status"] == "carried" for state in states) == 495
    assert sum(state["reason"] == "expired" for state in states) == 5
