"""The Redis store keeps the contract, over one server and over a Cluster of three."""

import pytest

from service.stores import open_store
from tests.stores.contract import SharedStoreContract
from tests.stores.redis_servers import cluster_url


class TestRedisStore(SharedStoreContract):
    @pytest.fixture
    def url(self, server):
        return server.url

    @pytest.fixture
    def store(self, url):
        store = open_store(url)
        yield store
        store.close()


class TestRedisCluster(SharedStoreContract):
    @pytest.fixture
    def url(self, cluster):
        return cluster_url(cluster)

    @pytest.fixture
    def store(self, url):
        store = open_store(url)
        yield store
        store.close()
