"""A store whose reply is lost after the commit never makes a step count twice, whatever the store."""

import sqlite3
import threading

import pytest

from service.stores import sqlite
from service.stores.sqlite_shard import Shard
from tests.stores.contract import LostReplyContract
from tests.stores.redis_servers import cluster_url

pytestmark = pytest.mark.usefixtures("patient")


class ErringConnection(sqlite3.Connection):
    """Commits what it is told to, and then, if a reply is to be lost, says that the disk failed."""

    to_lose = threading.Semaphore(0)

    def execute(self, statement, *values):
        done = super().execute(statement, *values)
        stored = statement.startswith(("INSERT", "UPDATE", "COMMIT")) and not self.in_transaction
        if stored and self.to_lose.acquire(blocking=False):
            raise sqlite3.OperationalError("disk I/O error")
        return done


class ErringShard(Shard):
    def connect(self):
        super().connect().close()
        return sqlite3.connect(self.file, factory=ErringConnection, isolation_level=None, check_same_thread=False)


class TestSqlite(LostReplyContract):
    @pytest.fixture
    def store(self, opened, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite, "Shard", ErringShard)
        monkeypatch.setattr(ErringConnection, "to_lose", threading.Semaphore(0))
        return opened(f"sqlite:///{tmp_path}/state")

    @pytest.fixture
    def lose(self, store):
        return ErringConnection.to_lose.release


class TestRedis(LostReplyContract):
    @pytest.fixture
    def store(self, opened, proxy):
        yield opened(f"redis://127.0.0.1:{proxy.port}")
        assert proxy.lost > 0

    @pytest.fixture
    def lose(self, proxy):
        return lambda: proxy.lose_reply(to=b"EVAL")


class TestRedisCluster(LostReplyContract):
    @pytest.fixture
    def store(self, opened, cluster, proxies):
        yield opened(cluster_url(cluster))
        assert sum(proxy.lost for proxy in proxies.values()) > 0

    @pytest.fixture
    def lose(self, proxies):
        return lambda: [proxy.lose_reply(to=b"EVAL") for proxy in proxies.values()]
