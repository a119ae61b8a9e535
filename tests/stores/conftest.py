"""Redis servers that the stores' tests share: each test begins with empty ones."""

import pytest

from tests.stores.redis_servers import redis_cluster, redis_server


@pytest.fixture(scope="session")
def _server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory):
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def server(_server):
    """One Redis server."""
    _server.ask("FLUSHALL")
    return _server


@pytest.fixture
def cluster(_cluster):
    """The three servers of a Cluster."""
    for server in _cluster:
        server.ask("FLUSHALL")
    return _cluster
