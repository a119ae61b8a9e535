"""Processes are killed at random moments over the sqlite store: nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.checker import Offline
from tests.chaos.scenario import Chaos, survive
from tests.chaos.troubles import Service


@pytest.fixture
def service(tiny_repository: Path, tmp_path: Path, chaos: Chaos) -> Iterator[Service]:
    service = Service(tiny_repository, f"sqlite:///{tmp_path}/state", chaos.random())
    yield service
    service.close()


def test_killed_workers_lose_no_step_and_double_none(service: Service, chaos: Chaos, offline: Offline) -> None:
    troubles = {"a worker": service.kill_a_worker, "every worker": service.kill_every_worker, "reload": service.reload}
    survive(chaos, [service.url], troubles, offline, met=lambda counts: counts["no answer"] > 0)


def test_a_service_killed_as_a_whole_or_stopped_goes_on_where_it_was(
    service: Service, chaos: Chaos, offline: Offline
) -> None:
    troubles = {"everything": service.kill_all, "the master": service.kill_the_master, "stop": service.stop}
    survive(chaos, [service.url], troubles, offline, met=lambda counts: counts["no answer"] > 0)


def test_workers_killed_during_bulk_requests_lose_no_step_and_double_none(
    service: Service, chaos: Chaos, offline: Offline
) -> None:
    troubles = {"a worker": service.kill_a_worker, "every worker": service.kill_every_worker, "reload": service.reload}

    def met(counts: Counter[str]) -> bool:
        return counts["no answer"] > 0

    survive(chaos, [service.url], troubles, offline, met, together=40)
