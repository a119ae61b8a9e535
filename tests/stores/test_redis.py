"""The Redis store keeps the contract, over one server and over a Cluster of three."""

import pytest

from tests.stores.contract import SharedStoreContract
from tests.stores.redis_servers import cluster_url

pytestmark = pytest.mark.usefixtures("patient")


class TestRedisStore(SharedStoreContract):
    @pytest.fixture
    def url(self, server):
        return server.url

    @pytest.fixture
    def store(self, opened, url):
        return opened(url)


class TestRedisCluster(SharedStoreContract):
    @pytest.fixture
    def url(self, cluster):
        return cluster_url(cluster)

    @pytest.fixture
    def store(self, opened, url):
        return opened(url)
