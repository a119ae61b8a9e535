"""A scenario: a load, its troubles, and the check of everything it was told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.checker import Offline, check
from tests.chaos.load import Load
from tests.chaos.troubles import Trouble, haunt


@dataclass(frozen=True)
class Chaos:
    """`seed` decides series, troubles and their order; `seconds` is how long a scenario goes on."""

    seed: int
    seconds: float

    def random(self) -> random.Random:
        """Numbers of a scenario, from the seed."""
        return random.Random(self.seed)


LEAST = 500  # requests that must have been acknowledged


def survive(
    chaos: Chaos,
    urls: Sequence[str],
    troubles: Mapping[str, Trouble],
    offline: Offline,
    met: Callable[[Counter[str]], bool] = lambda counts: True,
    least: int = LEAST,
    together: int = 1,
) -> None:
    """Runs `troubles` under a load on `urls`, then demands that no acknowledged step is lost, doubled or off.

    It goes on until `least` requests are acknowledged, of which `together` go in one bulk request, and `met` holds of
    what the clients met, which is printed for whoever looks at a failure.
    """
    load = Load(urls, chaos.seed, together=together)

    def enough() -> bool:
        return load.acknowledged >= least and met(load.counts)

    load.start()
    try:
        happened = haunt(load, troubles, chaos.random(), chaos.seconds, enough)
    finally:
        try:
            load.finish()
        finally:
            print("met:", dict(load.counts))
    compared = check(load.clients, offline)
    print("troubles:", dict(happened), "predictions compared:", compared)
    assert load.acknowledged >= least
    assert compared >= load.acknowledged
    assert all(client.step > 0 for client in load.clients)
    assert met(load.counts), "the troubles came to nothing"
