"""What the tests of stores in trouble ask, on a machine that may itself stand still for a while."""

import time

import pytest

from service.core.errors import StoreUnavailable
from tests.serving import wait_until
from tests.stores.contract import fresh

SOON_S = 2.5  # "about a second"
ROUNDS = 10
RECOVERY_S = 60.0


def succeeds(verb):
    """Whether a verb does not raise StoreUnavailable."""
    try:
        verb()
    except StoreUnavailable:
        return False
    return True


def timed(verb):
    """How long a verb took to raise StoreUnavailable, and what it said."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        verb()
    return time.monotonic() - begun, str(caught.value)


def soon(took):
    """Whether `took` measures less than SOON_S, in one of some rounds: a busy machine can hold up any of them, but what
    is slow by itself is slow in each."""
    return any(took() < SOON_S for _ in range(ROUNDS))


def answered(verb):
    """What a verb answers once it does not raise StoreUnavailable. One that may be repeated: a read, a save."""
    answers = []
    wait_until(lambda: succeeds(lambda: answers.append(verb())), RECOVERY_S, "an answer")
    return answers[-1]


def kept(store, key, blob=b"record"):
    """Saves a new record, whatever it takes; its nonce."""
    nonce = fresh()
    assert answered(lambda: store.save(key, None, nonce, blob)) is True
    return nonce
