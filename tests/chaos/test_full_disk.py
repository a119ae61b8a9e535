"""The disk runs full at random moments: 503 with Retry-After, nothing lost, and it goes on when there is room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.checker import Offline
from tests.chaos.room import FileLimit, Room, small_disk
from tests.chaos.scenario import Chaos, survive
from tests.chaos.troubles import Service


@pytest.fixture(params=["disk", "limit"])
def service_and_room(
    request: pytest.FixtureRequest, tiny_repository: Path, tmp_path: Path, chaos: Chaos
) -> Iterator[tuple[Service, Room]]:
    """A service, and the room of its store: a small disk's, or what a limit leaves where none can be mounted."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk"))
        service = Service(tiny_repository, f"sqlite:///{tmp_path}/disk/state", chaos.random())
        stack.callback(service.close)
        if request.param == "disk" and disk is not None:
            yield service, disk
        else:
            yield service, FileLimit(lambda: [service.running.pid, *service.running.workers()])


def test_a_disk_that_runs_full_loses_no_step_and_doubles_none(
    service_and_room: tuple[Service, Room], chaos: Chaos, offline: Offline
) -> None:
    service, room = service_and_room
    rng = chaos.random()

    def run_full() -> None:
        room.take()
        threading.Event().wait(rng.uniform(0.2, 2.5))
        room.give()

    def run_full_and_lose_a_worker() -> None:
        room.take()
        service.kill_a_worker()
        threading.Event().wait(rng.uniform(0.2, 2.5))
        room.give()

    troubles = {"full": run_full, "full, a worker killed": run_full_and_lose_a_worker}
    survive(chaos, [service.url], troubles, offline, met=lambda counts: counts["503 store_unavailable"] > 0)
