"""Stores full of real records, quickly, and what is in a store."""

import hashlib

import numpy as np

from service.core.record import Record, Track, encode
from service.core.scoring import no_errors
from service.core.types import ClientKey
from service.moving.transfer import slices
from service.stores import open_store

NOW = 1_700_000_000.0
STATE = 128  # numbers: with its context a record is about 1.5 kB


def key(number, tenant="default", model="toy"):
    return ClientKey(tenant, model, f"client/{number:05}")  # a slash, as no path has it: whatever is kept is moved


def entry(client, step=1, touched=NOW):
    """(nonce, blob) of a client's record after `step` steps."""
    random = np.random.default_rng(list(f"{client.path()} {step}".encode()))
    track = Track("ab" * 32, random.random(STATE, np.float32), np.ones((1, 3), np.float32))
    context = random.random((200, 1), np.float32)
    record = Record("stable", 1, step, step, float("nan"), NOW, touched, (track,), context, no_errors(1))
    blob = encode(client, record)
    return hashlib.sha256(blob).digest()[:8], blob


def fill(url, keys, step=1, touched=NOW):
    """Puts records under `keys`, over what is there."""
    store = open_store(url)
    try:
        for one in keys:
            stored = store.load(one)
            assert store.save(one, None if stored is None else stored.nonce, *entry(one, step, touched))
    finally:
        store.close()


def put(url, one, nonce, blob):
    store = open_store(url)
    try:
        assert store.save(one, None, nonce, blob)
    finally:
        store.close()


def content(url):
    """Every record of a store: key -> (nonce, blob)."""
    store = open_store(url)
    try:
        return {one.key: (one.nonce, one.blob) for entries, _ in slices(store) for one in entries}
    finally:
        store.close()
