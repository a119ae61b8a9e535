"""The sqlite store keeps the contract."""

import pytest

from service.stores import open_store
from tests.stores.contract import SharedStoreContract


class TestSqliteStore(SharedStoreContract):
    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path}/state"

    @pytest.fixture
    def store(self, url):
        store = open_store(url)
        yield store
        store.close()
