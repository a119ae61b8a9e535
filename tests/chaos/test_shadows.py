"""Workers are killed while a candidate shadows every client: both tracks take each step once, and no answer differs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.repository import Repository
from service.core.record import decode
from service.core.types import ClientKey
from service.http.context import TENANT
from service.stores import open_store
from tests.chaos.checker import SCALE, TOLERANCE, Offline, check, make_offline
from tests.chaos.load import MODEL, Load
from tests.chaos.scenario import Chaos
from tests.chaos.troubles import Service, haunt


@pytest.fixture
def shadowed(two_versions: Path, tmp_path: Path, chaos: Chaos) -> Iterator[Service]:
    shutil.copytree(two_versions, tmp_path / "models")
    Repository(tmp_path / "models").set_label(MODEL, "candidate", 2)
    service = Service(tmp_path / "models", f"sqlite:///{tmp_path}/state", chaos.random())
    yield service
    service.close()


def test_killed_workers_move_both_tracks_of_a_client_or_neither(
    shadowed: Service, tmp_path: Path, chaos: Chaos, offline: Offline
) -> None:
    load = Load([shadowed.url], chaos.seed)
    load.start()
    try:
        troubles = {"a worker": shadowed.kill_a_worker, "everything": shadowed.kill_all}
        happened = haunt(
            load,
            troubles,
            chaos.random(),
            chaos.seconds,
            enough=lambda: load.acknowledged >= 200 and load.counts["no answer"] > 0,
        )
    finally:
        load.finish()
    compared = check(load.clients, offline)
    print("met:", dict(load.counts), "troubles:", dict(happened), "predictions compared:", compared)
    assert load.counts["no answer"] > 0
    assert compared >= load.acknowledged >= 200

    candidate = make_offline(seed=12)
    store = open_store(f"sqlite:///{tmp_path}/state")
    try:
        for client in load.clients:
            stored = store.load(ClientKey(TENANT, MODEL, client.name))
            assert stored is not None
            record = decode(ClientKey(TENANT, MODEL, client.name), stored.blob)
            assert (record.step, len(record.tracks)) == (client.step, 2)
            row, track = candidate(client.series(client.step)[None])[0, -1], record.tracks[1]
            assert (np.abs(track.y - row) <= TOLERANCE * np.maximum(np.abs(row), SCALE)).all(), client.name
            assert (track.sums[0], track.sums[3]) == (client.step - 1, client.step), client.name
    finally:
        store.close()
