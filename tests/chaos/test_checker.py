"""The harness itself: it finds a lost step, a doubled one and a wrong prediction, and a store that forgets."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.checker import TARGETS, Offline, check
from tests.chaos.load import Acknowledged, Broken, Client, Load
from tests.chaos.troubles import Service
from tests.serving import wait_until


def told(row: np.ndarray) -> dict[str, object]:
    """A row of the offline pass, (3, 4), as the service would answer it."""
    values = zip(TARGETS, row.tolist(), strict=True)
    return {name: {"value": y[0], "interval": {"lower": y[1], "upper": y[3]}} for name, y in values}


@pytest.fixture
def client(offline: Offline) -> Client:
    """A client with ten right answers."""
    client = Client("c", "step", "1")
    rows = offline(client.series(10)[None])[0]
    client.answers = [Acknowledged(step, step, [(step, told(rows[step - 1]))]) for step in range(1, 11)]
    client.step = 10
    return client


def test_right_answers_pass(client: Client, offline: Offline) -> None:
    assert check([client] * 70, offline) == 700


def test_a_prediction_that_lacks_a_step_is_found(client: Client, offline: Offline) -> None:
    rows = offline(np.delete(client.series(10), 4, axis=0)[None])[0]
    client.answers[8:] = [Acknowledged(9, 9, [(9, told(rows[7]))]), Acknowledged(10, 10, [(10, told(rows[8]))])]
    with pytest.raises(Broken, match="step 9"):
        check([client], offline)


def test_a_prediction_that_counted_a_step_twice_is_found(client: Client, offline: Offline) -> None:
    rows = offline(np.insert(client.series(10), 3, client.series(10)[3], axis=0)[None])[0]
    client.answers[9] = Acknowledged(10, 10, [(10, told(rows[10]))])
    with pytest.raises(Broken, match="step 10"):
        check([client], offline)


def test_a_step_acknowledged_twice_is_found(client: Client, offline: Offline) -> None:
    client.answers.append(client.answers[-1])
    with pytest.raises(Broken, match="came after step 10"):
        check([client], offline)


def test_a_store_that_forgets_is_found(tiny_repository: Path) -> None:
    service = Service(tiny_repository, "memory://", random.Random(1), workers=1)
    load = Load([service.url], seed=1, clients_n=20, threads_n=2)
    try:
        load.start()
        wait_until(lambda: load.acknowledged > 200, 120, "200 acknowledged requests")
        service.kill_a_worker()
        wait_until(lambda: load.failed, 120, "a broken promise")
        with pytest.raises(Broken, match="client-"):
            load.finish()
    finally:
        service.close()
