"""The desks most tests of the core sit at."""

import pytest

from tests.desk import HOUR, Desk
from tests.fakes import make_spec


@pytest.fixture
def desk():
    """A model of one feature without an interval."""
    return Desk(make_spec())


@pytest.fixture
def hourly():
    """A model of one feature, one step an hour."""
    return Desk(make_spec(interval_s=HOUR))
