"""Many senders at one client at once, unnumbered, while processes and replies are lost: each absorbed once or not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.checker import Offline
from tests.chaos.crowd import OBSERVATIONS, Crowds, Sent, check_crowds, check_one
from tests.chaos.load import SPREAD, USUAL, Broken
from tests.chaos.scenario import Chaos
from tests.chaos.test_checker import told
from tests.chaos.troubles import Service, Trouble, haunt
from tests.stores.proxy import proxy_to
from tests.stores.redis_servers import redis_server


def survive(
    chaos: Chaos, urls: Sequence[str], state_url: str, troubles: Mapping[str, Trouble], offline: Offline
) -> Counter[str]:
    """Runs `troubles` while crowds send to `urls`, then looks into the store for what became of every observation."""
    crowds = Crowds(urls, chaos.seed)
    crowds.start()
    try:
        happened = haunt(crowds, troubles, chaos.random(), chaos.seconds, lambda: crowds.acknowledged >= 300)
    finally:
        try:
            crowds.finish()
        finally:
            print("met:", dict(crowds.counts))
    fates = check_crowds(state_url, crowds.series, crowds.sent, offline)
    print("troubles:", dict(happened), "observations:", dict(fates), "clients:", len(crowds.sent))
    assert fates["acknowledged"] >= 300
    assert fates["in doubt"] > 0
    return fates


def test_crowds_over_workers_that_are_killed_count_each_observation_once_or_not_at_all(
    tiny_repository: Path, tmp_path: Path, chaos: Chaos, offline: Offline
) -> None:
    state_url = f"sqlite:///{tmp_path}/state"
    service = Service(tiny_repository, state_url, chaos.random())
    try:
        troubles = {"a worker": service.kill_a_worker, "everything": service.kill_all}
        survive(chaos, [service.url], state_url, troubles, offline)
    finally:
        service.close()


def test_crowds_over_replicas_whose_redis_dies_or_loses_replies_count_each_observation_once_or_not_at_all(
    tiny_repository: Path, tmp_path: Path, chaos: Chaos, offline: Offline
) -> None:
    rng = random.Random(chaos.seed)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always"))
        proxy = stack.enter_context(proxy_to(redis.address))
        replicas = []
        for _ in range(2):
            replicas.append(Service(tiny_repository, f"redis://127.0.0.1:{proxy.port}", chaos.random(), workers=1))
            stack.callback(replicas[-1].close)

        def kill_redis() -> None:
            redis.kill()
            redis.start()

        def lose_replies() -> None:
            proxy.lose_reply(b"EVAL", rng.randint(1, 20))

        troubles: dict[str, Trouble] = {"redis": kill_redis, "replies": lose_replies}
        troubles["a worker"] = replicas[0].kill_a_worker
        survive(chaos, [service.url for service in replicas], redis.url, troubles, offline)
        assert proxy.lost > 0


# -- the check itself finds what it is for ----------------------------------------------------------------------------


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(5).normal(USUAL, SPREAD, (OBSERVATIONS, 3)).astype(np.float32)


def fared(offline: Offline, series: np.ndarray, order: Sequence[int]) -> dict[int, Sent]:
    """All of `order` acknowledged in that order, rightly."""
    rows = offline(series[list(order)][None])[0]
    return {
        place: Sent("acknowledged", {"step": step, "prediction": told(row)})
        for step, (place, row) in enumerate(zip(order, rows, strict=True), 1)
    }


ORDER = [3, 1, 4, 0, 5, 9, 2, 6]


def test_observations_absorbed_in_any_order_pass_and_those_in_doubt_either_way(
    series: np.ndarray, offline: Offline
) -> None:
    fates = fared(offline, series, ORDER)
    fates |= {7: Sent("in doubt"), 8: Sent("refused"), ORDER[2]: Sent("in doubt")}
    check_one("c", series, fates, series[ORDER], offline)


@pytest.mark.parametrize(
    ("absorbed", "found"),
    [
        (ORDER[:-1], "acknowledged and is kept as None"),
        ([*ORDER, 3], "absorbed twice, as steps 1 and 9"),
        ([*ORDER, 8], "refused without a doubt"),
        ([ORDER[1], ORDER[0], *ORDER[2:]], "acknowledged and is kept as"),
    ],
    ids=["lost", "doubled", "refused and kept", "another order"],
)
def test_an_observation_lost_doubled_or_out_of_place_is_found(
    series: np.ndarray, offline: Offline, absorbed: list[int], found: str
) -> None:
    fates = fared(offline, series, ORDER) | {8: Sent("refused")}
    with pytest.raises(Broken, match=found):
        check_one("c", series, fates, series[absorbed], offline)


def test_a_prediction_of_another_state_is_found(series: np.ndarray, offline: Offline) -> None:
    fates = fared(offline, series, ORDER)
    wrong = offline(series[ORDER[1:]][None])[0][-1]
    fates[ORDER[-1]] = Sent("acknowledged", {"step": len(ORDER), "prediction": told(wrong)})
    with pytest.raises(Broken, match="step 8"):
        check_one("c", series, fates, series[ORDER], offline)
