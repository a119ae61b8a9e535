"""What the stores' tests share: Redis servers, empty at the start of each test, and stores that are closed after it."""

from contextlib import ExitStack

import pytest

from service.stores import open_store, redis_route
from service.stores.redis_server import Server
from tests.stores import redis_servers
from tests.stores.proxy import proxy_to


@pytest.fixture(scope="session")
def _server(tmp_path_factory):
    with redis_servers.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory):
    with redis_servers.redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
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


@pytest.fixture
def opened():
    """Opens stores, and closes them at the end."""
    stores = []

    def open_and_remember(url):
        stores.append(open_store(url))
        return stores[-1]

    yield open_and_remember
    for store in stores:
        store.close()


@pytest.fixture
def proxy(server):
    """A proxy to the one Redis server."""
    with proxy_to(server.address) as proxy:
        yield proxy


@pytest.fixture
def store(opened, proxy):
    """A store over the one Redis server, through the proxy."""
    return opened(f"redis://127.0.0.1:{proxy.port}")


@pytest.fixture
def proxies(cluster, monkeypatch):
    """A proxy to each server of the Cluster, by the server's address. Stores that are opened now go through them."""
    with ExitStack() as stack:
        found = {server.address: stack.enter_context(proxy_to(server.address)) for server in cluster}

        class ProxiedServer(Server):
            def __init__(self, address, where):
                super().__init__(found[address].address, where)
                self.address = address

        monkeypatch.setattr(redis_route, "Server", ProxiedServer)
        yield found
