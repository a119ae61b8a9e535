"""What becomes of records brought together is what would become of each alone, in any store."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from service.core.errors import StoreUnavailable
from service.core.ports import Entry, SavesMany
from service.moving.transfer import SLICE, Tally, bring, bring_all
from service.stores.memory import MemoryStore
from tests.service.moving.records import NOW, entry, key


class PlainStore:
    """A store without optional powers."""

    def __init__(self):
        self._store = MemoryStore()
        self.load, self.save, self.delete = self._store.load, self._store.save, self._store.delete
        self.list, self.close = self._store.list, self._store.close


class Busy(MemoryStore):
    """A store in which another writes to a client in between, and which is away once, what was saved being stored."""

    def __init__(self, writes):
        super().__init__()
        self.writes = writes
        self.away = True

    def save_many(self, saves):
        while self.writes:
            one = self.writes.pop()
            stored = self.load(one.key)
            assert self.save(one.key, None if stored is None else stored.nonce, one.nonce, one.blob)
        answers = super().save_many(saves)
        if self.away:
            self.away = False
            raise StoreUnavailable("away", in_doubt=True)
        return answers


def at(number, step):
    return Entry(key(number), *entry(key(number), step, NOW + step))


def some_of(random, many, of):
    """Records of some clients at some steps, some of a client twice, some damaged under their nonce."""
    found = [at(random.randrange(of), random.randrange(1, 4)) for _ in range(many)]
    return [one._replace(blob=one.blob[:-1] + b"?") if random.random() < 0.1 else one for one in found]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_records_brought_together_end_as_if_brought_one_by_one(seed, replace):
    random = Random(seed)
    alone, together = PlainStore(), MemoryStore()
    assert isinstance(together, SavesMany)
    assert not isinstance(alone, SavesMany)
    expected, tally = Tally(), Tally()
    for _ in range(3):
        entries = some_of(random, 250, 40 if seed % 2 else 400)
        for one in entries:
            expected.add(bring(alone, one, replace=replace))
        bring_all(together, iter(entries), tally, replace=replace)
        keys = [key(number) for number in range(400)]
        assert together.load_many(keys) == [alone.load(one) for one in keys]
    assert tally == expected
    assert tally.moved + tally.there + tally.kept == 750


def test_a_store_without_the_power_is_brought_them_by_several_threads():
    entries = [at(number, 1) for number in range(30)]
    store, tally = PlainStore(), Tally()
    bring_all(store, entries, tally)
    bring_all(store, entries, tally)
    assert tally == Tally(moved=30, there=30)
    assert [store.load(one.key).nonce for one in entries] == [one.nonce for one in entries]


def test_what_others_write_meanwhile_is_compared_anew_and_a_lost_reply_is_no_loss():
    entries = [at(number, 2) for number in range(SLICE + 50)]
    store, tally = Busy([at(3, 1), at(4, 3), at(5, 2)]), Tally()
    bring_all(store, entries, tally)
    assert tally == Tally(moved=SLICE + 49, kept=1)  # one was there, under the same nonce
    assert [store.load(key(number)) for number in (3, 4, 5)] == [at(n, s)[1:] for n, s in ((3, 2), (4, 3), (5, 2))]


def test_of_several_that_bring_the_same_at_once_each_record_is_moved_by_one():
    entries = [at(number, 1) for number in range(300)]
    store, tallies = MemoryStore(), [Tally() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda tally: bring_all(store, entries, tally), tallies))
    assert sum(tally.moved + tally.there for tally in tallies) == 1200
    assert {store.load(one.key) for one in entries} == {one[1:] for one in entries}
