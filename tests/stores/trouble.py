"""What the tests of stores in trouble ask."""

import time

import pytest

from service.core.errors import StoreUnavailable

SOON_S = 2.5  # "about a second", on a busy machine


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
