"""What other processes do in the tests of sweeping: python -m tests.service.sweeping WHAT URL TTL_S."""

import os
import resource
import sys
import time

from service.core.errors import StoreUnavailable
from service.core.predictor import Limits, Predictor
from service.core.sweep import Sweep, Swept
from service.core.tombstones import stone_key
from service.core.types import ClientKey
from service.stores import open_store
from tests.desk import request
from tests.fakes import LeakyIntegrator, SettableClock, make_spec, registry_of


def sweep_once(one, swept):
    cursor = None
    while (cursor := one.slice(cursor, swept)) is not None:
        pass


def without_end(url, ttl_s):
    """Sweeps again and again, no lease asked; says after each sweep how many were buried so far."""
    store, swept = open_store(url), Swept()
    one = Sweep(registry_of(make_spec(), LeakyIntegrator()), store, store, time.time, idle_ttl_s=ttl_s)
    while True:
        sweep_once(one, swept)
        print(swept.buried["toy"], flush=True)


def without_room(url, ttl_s):
    """Fills the store until its files may not grow, lets all expire, sweeps there, then with room; says what it met."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # stands in for a full disk: writes fail with EFBIG
    store, clock, registry = open_store(url), SettableClock(), registry_of(make_spec(), LeakyIntegrator())
    predictor = Predictor(registry, store, clock, Limits(idle_ttl_s=ttl_s))
    keys, refused, n = [], 0, 0
    while refused < 50:
        n += 1
        key = ClientKey("default", "toy", f"client-{n}")
        try:
            predictor.predict(key, request(*[1.0] * 40))
        except StoreUnavailable:
            refused += 1
        else:
            keys.append(key)
    clock.now += 2 * ttl_s
    one, broken = Sweep(registry, store, store, clock, idle_ttl_s=ttl_s), 0
    for _ in range(20):
        try:
            sweep_once(one, Swept())
        except StoreUnavailable:
            broken += 1
        assert all(store.load(key) is not None or store.load(stone_key(key)) is not None for key in keys)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sweep_once(one, Swept())
    assert [key for key in keys if store.load(key) is not None] == []
    steps = {predictor.predict(key, request(2.0, step=41)).step for key in keys}
    print(len(keys), broken, steps)
    store.close()


if __name__ == "__main__":
    what, url, ttl_s = sys.argv[1:]
    {"without_end": without_end, "without_room": without_room}[what](url, float(ttl_s))
    sys.stdout.flush()
    os._exit(0)
