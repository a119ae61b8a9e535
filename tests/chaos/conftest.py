"""One seed and one bound for every scenario: CHAOS_SEED and CHAOS_SECONDS; `make chaos` runs them for longer."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.chaos.checker import Offline, make_offline
from tests.chaos.scenario import Chaos


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """The seed is printed, so that a failure shows what to set to see it again."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(2**31))
    print(f"CHAOS_SEED={seed} pytest {request.node.nodeid}")
    return Chaos(seed, float(os.environ.get("CHAOS_SECONDS") or 8))


@pytest.fixture(scope="session")
def offline() -> Offline:
    return make_offline()
