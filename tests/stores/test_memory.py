"""The memory store keeps the contract."""

import pytest

from service.stores.memory import MemoryStore
from tests.stores.contract import StateStoreContract


class TestMemoryStore(StateStoreContract):
    @pytest.fixture
    def store(self):
        store = MemoryStore()
        yield store
        store.close()
