"""What the other processes do in the tests of shared stores: python -m tests.stores.workers URL WHAT [N]."""

import os
import random
import resource
import secrets
import sys
import threading
from functools import partial

from service.core.errors import StoreUnavailable
from service.core.ports import Save
from service.core.types import ClientKey
from service.stores import open_store
from service.stores.errors import StoreNotOpened
from tests.patience import wait_long
from tests.serving import wait_until

KEY = ClientKey("tenant", "sensor", "roof-7")
SOON_S = 10.0  # a shard that was full just now tries again after a moment


def number(stored):
    """The count a record holds, 0 for none."""
    return 0 if stored is None else int(stored.blob)


def bump(store, key):
    """Adds one to a counter by compare-and-set, trying again until it wins; the number it made."""
    while True:
        stored = store.load(key)
        made = number(stored) + 1
        if store.save(key, None if stored is None else stored.nonce, secrets.token_bytes(8), b"%d" % made):
            return made


def bump_many(store, keys):
    """Tries once, for each of some counters, to add one; how many times it won."""
    saves = [
        Save(key, None if stored is None else stored.nonce, secrets.token_bytes(8), b"%d" % (number(stored) + 1))
        for key, stored in zip(keys, store.load_many(keys), strict=True)
    ]
    return sum(store.save_many(saves))


def count_many(store, times):
    """Adds to 20 of 30 counters at once, `times` times; how often it won."""
    keys = [ClientKey("tenant", "sensor", f"client-{n}") for n in range(30)]
    chance = random.Random(os.getpid())
    print(sum(bump_many(store, chance.sample(keys, 20)) for _ in range(times)))


def count(store, times):
    """Adds `times` to the one counter."""
    for _ in range(times):
        bump(store, KEY)
    print(times)


def race(store):
    """For each line on stdin, a nonce or nothing, saves the one record on that; says whether it won, and its nonce."""
    for line in sys.stdin:
        old, new = bytes.fromhex(line.strip()) or None, secrets.token_bytes(8)
        print(int(store.save(KEY, old, new, new)), new.hex(), flush=True)


def bury(store, clients):
    """Each client is either saved anew or deleted, as it was read; how many this process deleted."""
    buried = 0
    for n in range(clients):
        key = ClientKey("tenant", "sensor", f"client-{n}")
        stored = store.load(key)
        if stored is None or stored.blob == b"back":
            continue
        if secrets.randbits(1):
            store.save(key, stored.nonce, secrets.token_bytes(8), b"back")
        else:
            buried += store.delete(key, stored.nonce)
    print(buried)


def echo(store):
    """Counts up, and waits each time until the other side has answered in a record of its own."""
    while True:
        made = bump(store, KEY)
        print(made, flush=True)
        while number(store.load(ClientKey("tenant", "sensor", "answer"))) < made:
            pass


def write(store):
    """Writes records in turn without end, saying each number once its save was acknowledged."""
    made = 0
    while True:
        made += 1
        key = ClientKey("tenant", "sensor", f"client-{made % 20}")
        stored = store.load(key)
        assert store.save(key, None if stored is None else stored.nonce, secrets.token_bytes(8), b"%d" % made)
        print(made, flush=True)


def fork(store):
    """Forks four children from a store in use by other threads; all count; the total."""
    threads = [threading.Thread(target=lambda: [bump(store, KEY) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(4):
        bump(store, ClientKey("tenant", "sensor", "parent"))
        child = os.fork()
        if child == 0:
            for _ in range(200):
                bump(store, KEY)
            store.close()
            os._exit(0)
        children.append(child)
    for thread in threads:
        thread.join()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    print(bump(store, KEY))
    store.close()


def stored_all(store, saves):
    """Whether all of `saves` are stored now; False while there is no room."""
    try:
        return all(store.save_many(saves))
    except StoreUnavailable:
        return False


def fill(store):
    """Writes clients until its files may not grow, then lets them grow again; how many saves were acknowledged."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # stands in for a full disk: writes fail with EFBIG
    blob, acknowledged, refused = secrets.token_bytes(4600), {}, 0

    def attempt(n):
        key, nonce = ClientKey("tenant", "sensor", f"client-{n}"), secrets.token_bytes(8)
        try:
            assert store.save(key, None, nonce, blob)
        except StoreUnavailable:
            assert store.load(key) is None
            return False
        acknowledged[key] = nonce
        return True

    n = 0
    while refused < 30:
        n += 1
        refused += not attempt(n)
    assert all(store.load(key) == (nonce, blob) for key, nonce in acknowledged.items())
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for _ in range(200):
        n += 1
        wait_until(partial(attempt, n), SOON_S, "room for one more", every_s=0.002)
    assert all(store.load(key) == (nonce, blob) for key, nonce in acknowledged.items())
    print(len(acknowledged))
    store.close()


def fill_many(store):
    """As `fill`, twenty at once: a refusal leaves each of them whole or not there; the same again stores them all."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    blob, acknowledged, refused = secrets.token_bytes(4600), {}, []
    for turn in range(60):
        keys = [ClientKey("tenant", "sensor", f"client-{turn}-{n}") for n in range(20)]
        saves = [Save(key, None, secrets.token_bytes(8), blob) for key in keys]
        try:
            assert all(store.save_many(saves))
        except StoreUnavailable:
            kept = zip(saves, store.load_many(keys), strict=True)
            assert all(stored in (None, (save.new, blob)) for save, stored in kept)
            refused.append(saves)
        else:
            acknowledged |= {save.key: (save.new, blob) for save in saves}
    assert refused
    assert store.load_many(list(acknowledged)) == list(acknowledged.values())
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for saves in refused:
        wait_until(partial(stored_all, store, saves), SOON_S, "room for all that were refused", every_s=0.002)
    assert store.load_many(list(acknowledged)) == list(acknowledged.values())
    print(len(acknowledged))
    store.close()


def open_without_room(url):
    """Opens a store while no file may grow, asks for a record, and asks again once files may grow."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    store = open_store(url)
    try:
        store.load(KEY)
    except StoreUnavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(bump(store, KEY))
    store.close()


def unprivileged(url):
    """Opens the store as a user without rights; what it says."""
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        open_store(url)
    except StoreNotOpened as error:
        print(error)


OPENED = {
    "count": count,
    "count_many": count_many,
    "race": race,
    "bury": bury,
    "echo": echo,
    "write": write,
    "fork": fork,
    "fill": fill,
    "fill_many": fill_many,
}
UNOPENED = {"open_without_room": open_without_room, "unprivileged": unprivileged}

if __name__ == "__main__":
    url, what, *numbers = sys.argv[1:]
    if url.startswith("redis"):
        wait_long()
    if what in UNOPENED:
        UNOPENED[what](url)
    else:
        OPENED[what](open_store(url), *map(int, numbers))
