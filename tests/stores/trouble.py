"""What the tests of stores in trouble ask."""

import time

import pytest

from service.core.errors import StoreUnavailable

SOON_S = 5.0  # "about a second" on a very busy machine: far less than eight that are waited for in turn


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
