"""Stores to move between."""

import pytest

from tests.stores.redis_servers import redis_server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def source(tmp_path):
    return f"sqlite:///{tmp_path}/source"


@pytest.fixture(params=["sqlite", "redis"])
def target(request, tmp_path):
    """A store of each kind that processes can share, empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/target"
    server = request.getfixturevalue("server")
    server.ask("FLUSHALL")
    return server.url
