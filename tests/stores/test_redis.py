"""The Redis store keeps the contract, over one server and over a Cluster of three."""

import pytest

from service.stores import open_store
from tests.stores.contract import SharedStoreContract
from tests.stores.redis_servers import cluster_url, redis_cluster, redis_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


class TestRedisStore(SharedStoreContract):
    @pytest.fixture
    def url(self, server):
        server.ask("FLUSHALL")
        return server.url

    @pytest.fixture
    def store(self, url):
        store = open_store(url)
        yield store
        store.close()


class TestRedisCluster(SharedStoreContract):
    @pytest.fixture
    def url(self, cluster):
        for server in cluster:
            server.ask("FLUSHALL")
        return cluster_url(cluster)

    @pytest.fixture
    def store(self, url):
        store = open_store(url)
        yield store
        store.close()
