"""The power goes at a random sync of the sqlite store's files, under load: what is then on the disk is a store."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.core.errors import RecurveError
from service.stores.sqlite_folder import prepare
from tests.chaos.checker import Offline, check
from tests.chaos.disk import Disk, lay
from tests.chaos.journal import SYNC, TOLD, TRUNCATE, WRITE, Journal
from tests.chaos.load import Broken, Client, Load, Wire, advance
from tests.chaos.scenario import Chaos
from tests.chaos.troubles import Service
from tests.chaos.wreck import inspect, offline_of
from tests.serving import running_service, wait_until

CUTS_A_SECOND = 4


class Recording:
    """A load on the real service, two workers, with all that SQLite did to the files meanwhile."""

    def __init__(self, models: Path, folder: Path, durability: str, seed: int, seconds: float) -> None:
        prepare(folder / "state")
        self.before = {file.name: file.read_bytes() for file in (folder / "state").iterdir()}
        self.journal = Journal(folder / "journal")
        self.url = f"sqlite:///{folder}/state?durability={durability}"
        with running_service(
            models, self.url, module="tests.chaos.recorded_service", adaptive_intervals=False
        ) as running:
            load = Load([running.url], seed, clients_n=200, told=self.journal.told)
            load.start()
            wait_until(lambda: load.failed or load.acknowledged > 100 * seconds, 120, "a load to record")
            load.finish()
        self.clients = load.clients

    def cuts(self, rng: random.Random, n: int) -> Iterator[tuple[dict[str, bytes], dict[str, int]]]:
        """The disk and what clients had been told, at `n` moments: about random syncs, or any if there are none."""
        events = list(self.journal.events())
        syncs = [at for at, event in enumerate(events) if event.kind == SYNC] or range(len(events))
        moments = sorted(min(rng.choice(syncs) + rng.choice((0, 1, 2, 3, 20)), len(events) - 1) for _ in range(n))
        disk, told = Disk(self.before), dict[str, int]()
        for at, event in enumerate(events):
            while moments and moments[0] == at:
                moments.pop(0)
                yield disk.cut(rng), dict(told)
            disk.feed(event)
            if event.kind == TOLD:
                told[event.name] = event.number


@pytest.fixture
def journal_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("CHAOS_JOURNAL", str(tmp_path / "journal"))
    return monkeypatch


@pytest.mark.usefixtures("journal_variables")
@pytest.mark.parametrize("durability", ["process", "power"])
def test_after_a_power_cut_the_store_is_whole_and_with_power_nothing_told_is_lost(
    durability: str, tiny_repository: Path, tmp_path: Path, chaos: Chaos, offline: Offline
) -> None:
    recording = Recording(tiny_repository, tmp_path, durability, chaos.seed, chaos.seconds / 3)
    check(recording.clients, offline)
    kinds = [event.kind for event in recording.journal.events()]
    assert kinds.count(WRITE) > 1_000
    assert kinds.count(SYNC) > 50
    assert TRUNCATE in kinds  # logs were cut
    rng, expected, most = chaos.random(), offline_of(recording.clients, offline), -1
    kept_by_then = dict[str, int]()
    for n, (disk, told) in enumerate(recording.cuts(rng, round(chaos.seconds * CUTS_A_SECOND))):
        lay(disk, tmp_path / f"cut-{n}")
        kept = inspect(tmp_path / f"cut-{n}", recording.clients, expected)
        lost = [name for name, step in told.items() if kept[name] < step]
        assert durability == "process" or not lost, f"cut {n}: {len(lost)} clients lost steps, {lost[:5]}"
        if len(lost) >= most:
            most, kept_by_then, wreck = len(lost), told, tmp_path / f"cut-{n}"
        else:
            shutil.rmtree(tmp_path / f"cut-{n}")
    assert (most > 0) == (durability == "process")  # what `power` costs does something
    service = Service(tiny_repository, f"sqlite:///{wreck}?durability={durability}", rng)
    try:
        back = sum(goes_on(client, kept_by_then.get(client.name, 0), service.url, rng) for client in recording.clients)
    finally:
        service.close()
    print(f"{durability}: {back} of {len(recording.clients)} clients had to send steps again")
    assert back == most
    check(recording.clients, offline)


def goes_on(client: Client, told: int, url: str, rng: random.Random) -> bool:
    """Lets a client go on after the step it was told last; True if a 409 sent it back to an earlier one."""
    wire = Wire([url], rng)
    try:
        client.answers.clear()
        client.step, client.how = told, "step"
        try:
            advance(client, wire, rng)
        except Broken as broken:
            if broken.expected_step is None:
                raise
            client.step = broken.expected_step - 1  # beyond `told`: its last request was saved and not yet answered
        back = client.step < told
        for _ in range(3):
            advance(client, wire, rng)
        return back
    finally:
        wire.close()


@pytest.mark.parametrize(("synchronous", "found"), [("NORMAL", "lost"), ("OFF", "broken")])
def test_a_store_that_does_not_wait_for_the_disk_is_found_out(
    synchronous: str,
    found: str,
    journal_variables: pytest.MonkeyPatch,
    tiny_repository: Path,
    tmp_path: Path,
    chaos: Chaos,
    offline: Offline,
) -> None:
    """`power` that syncs like `process` loses steps, and one that never syncs breaks: the cuts show it."""
    journal_variables.setenv("CHAOS_SYNCHRONOUS", synchronous)
    recording = Recording(tiny_repository, tmp_path, "power", chaos.seed, 2)
    expected, seen = offline_of(recording.clients, offline), Counter[str]()
    for n, (disk, told) in enumerate(recording.cuts(chaos.random(), 30)):
        lay(disk, tmp_path / f"cut-{n}")
        try:
            kept = inspect(tmp_path / f"cut-{n}", recording.clients, expected)
        except (Broken, RecurveError, sqlite3.Error):
            seen["broken"] += 1
        else:
            seen["lost"] += any(kept[name] < step for name, step in told.items())
    assert seen[found] > 0
    assert seen["broken"] == 0 or synchronous == "OFF"
