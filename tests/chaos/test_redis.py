"""Two replicas of the service over one Redis, clients hopping between them, while server, network and replicas fail."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.checker import Offline
from tests.chaos.scenario import Chaos, survive
from tests.chaos.troubles import Service, Trouble
from tests.stores.proxy import Proxy, proxy_to
from tests.stores.redis_servers import RedisServer, redis_server

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that has written down what it acknowledges."""
    with redis_server(tmp_path / "redis", *DURABLE) as server:
        yield server


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    with proxy_to(redis.address) as proxy:
        yield proxy


@pytest.fixture
def replicas(tiny_repository: Path, proxy: Proxy, chaos: Chaos) -> Iterator[list[Service]]:
    """Two services, one worker each, that know each other by way of the proxy to Redis alone."""
    with ExitStack() as stack:
        replicas = []
        for _ in range(2):
            replicas.append(Service(tiny_repository, f"redis://127.0.0.1:{proxy.port}", chaos.random(), workers=1))
            stack.callback(replicas[-1].close)
        yield replicas


def test_a_redis_that_is_killed_and_started_again_or_full_loses_no_step_and_doubles_none(
    redis: RedisServer, replicas: list[Service], chaos: Chaos, offline: Offline
) -> None:
    def kill_redis() -> None:
        redis.kill()
        redis.start()

    def stay_away() -> None:
        redis.kill()
        threading.Event().wait(1.5)
        redis.start()

    def run_out_of_memory() -> None:
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        threading.Event().wait(0.5)
        redis.ask("CONFIG", "SET", "maxmemory", "0")

    troubles: dict[str, Trouble] = {"kill": kill_redis, "stay away": stay_away, "memory full": run_out_of_memory}
    troubles |= {"a worker": replicas[0].kill_a_worker, "a replica": replicas[1].kill_all}

    def met(counts: Counter[str]) -> bool:
        return counts["503 store_unavailable"] > 0

    survive(chaos, [service.url for service in replicas], troubles, offline, met)


def test_bulk_requests_over_a_redis_that_comes_and_goes_lose_no_step_and_double_none(
    redis: RedisServer, proxy: Proxy, replicas: list[Service], chaos: Chaos, offline: Offline
) -> None:
    rng = random.Random(chaos.seed)

    def kill_redis() -> None:
        redis.kill()
        redis.start()

    def lose_replies() -> None:
        proxy.lose_reply(b"EVAL", rng.randint(1, 20))

    troubles: dict[str, Trouble] = {"kill": kill_redis, "replies": lose_replies, "a worker": replicas[0].kill_a_worker}

    def met(counts: Counter[str]) -> bool:
        return counts["items sent again"] > 0

    survive(chaos, [service.url for service in replicas], troubles, offline, met, least=300, together=40)


def test_a_network_that_is_cut_swallows_or_loses_replies_loses_no_step_and_doubles_none(
    proxy: Proxy, replicas: list[Service], chaos: Chaos, offline: Offline
) -> None:
    rng = random.Random(chaos.seed)

    def out_of_order(mode: str) -> Trouble:
        def begin_and_end() -> None:
            proxy.set_mode(mode)
            threading.Event().wait(rng.uniform(0.1, 2.5))
            proxy.set_mode("pass")

        return begin_and_end

    def lose_replies() -> None:
        """Changes are made and their replies lost, with the connection."""
        proxy.lose_reply(b"EVAL", rng.randint(1, 20))

    troubles = {"cut": out_of_order("cut"), "hole": out_of_order("hole"), "replies": lose_replies}

    def met(counts: Counter[str]) -> bool:
        return counts["503 store_unavailable"] > 0 and proxy.lost > 0

    survive(chaos, [service.url for service in replicas], troubles, offline, met)
