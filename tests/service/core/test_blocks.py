"""Records that were saved together are remembered together, and no client's older record is ever found again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.core.blocks import CLIENT_BYTES, Block, Blocks
from service.core.ports import Stored
from service.core.recent import APART, Recent
from service.core.types import ClientKey

SIZE = 40
KEYS = tuple(ClientKey("default", "toy", f"c{n}") for n in range(6))

some = st.lists(st.sampled_from(KEYS), min_size=1, max_size=6, unique=True).map(tuple)
verbs = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("take", "keep", "overtaken")), st.sampled_from(KEYS)),
        st.tuples(st.sampled_from(("take_many", "take_block", "keep_block", "keep_many")), some),
    ),
    max_size=60,
)


def block(keys, number=0):
    """Records that all say `number`."""
    return Block(keys, [number.to_bytes(8, "big")] * len(keys), np.full((len(keys), SIZE), number % 256, np.uint8))


def stored(number):
    """One of them."""
    return Stored(number.to_bytes(8, "big"), bytes([number % 256]) * SIZE)


@given(verbs)
def test_what_is_found_is_what_was_kept_last_and_is_found_once(done):
    recent, last = Recent(), {}
    for number, (verb, who) in enumerate(done):
        keys = who if isinstance(who, tuple) and not isinstance(who, ClientKey) else (who,)
        found = []
        if verb == "take":
            found = [recent.take(who)]
        elif verb == "take_many":
            found = recent.take_many(keys)
        elif verb == "take_block":
            whole = recent.take_block(keys)
            if whole is not None:
                assert whole.keys == keys
                found = [Stored(nonce, row.tobytes()) for nonce, row in zip(whole.nonces, whole.rows, strict=True)]
        elif verb == "keep":
            recent.keep(who, stored(number))
        elif verb == "keep_many":
            recent.keep_many((key, stored(number)) for key in keys)
        elif verb == "keep_block":
            recent.keep_block(block(keys, number))
        else:
            recent.overtaken(who)
        for key, one in zip(keys, found, strict=False):
            assert one is None or one == last.pop(key)
        if verb.startswith("keep"):
            last.update(dict.fromkeys(keys, stored(number)))


def test_the_same_clients_in_the_same_order_find_all_in_one_piece_and_others_each_its_own():
    recent = Recent()
    kept = block(KEYS)
    recent.keep_block(kept)
    assert recent.take_block(KEYS[::-1]) is None
    assert recent.take_block(KEYS[:-1]) is None
    assert recent.take_block(KEYS) is kept
    assert recent.take_block(KEYS) is None, "it is taken, not looked at"
    recent.keep_block(kept)
    assert recent.take_many(KEYS[::-1]) == [stored(0)] * len(KEYS)


def test_one_client_taken_by_itself_leaves_the_others_where_they_were():
    recent = Recent()
    recent.keep_block(block(KEYS, 1))
    assert recent.take(KEYS[2]) == stored(1)
    recent.keep(KEYS[2], stored(2))
    assert recent.take_block(KEYS) is None, "the second client's record is not in it any more"
    assert recent.take_many(KEYS) == [stored(2 if at == 2 else 1) for at in range(len(KEYS))]
    recent.keep_block(block(KEYS, 3))
    assert recent.take_block(KEYS) is not None


def test_who_was_overtaken_is_not_remembered_with_the_others_either():
    recent = Recent()
    recent.overtaken(KEYS[0])
    for _ in range(APART):
        recent.keep_block(block(KEYS))
        assert recent.take_block(KEYS) is None
        assert recent.take_many(KEYS) == [None, *[stored(0)] * (len(KEYS) - 1)]
    recent.keep_block(block(KEYS))
    assert recent.take_block(KEYS) is not None


def test_blocks_are_bounded_and_the_one_used_longest_ago_goes_first():
    each = 2 * (SIZE + CLIENT_BYTES)
    blocks = Blocks(2 * each)
    pairs = [KEYS[at : at + 2] for at in (0, 2, 4)]
    for pair in pairs:
        blocks.keep(block(pair))
    assert blocks.take(pairs[0]) is None
    assert blocks.take_one(KEYS[1]) is None
    taken = blocks.take(pairs[1])
    assert taken is not None
    blocks.keep(taken)
    blocks.keep(block(pairs[0]))
    assert [blocks.take(pair) is not None for pair in pairs] == [True, True, False]
    blocks = Blocks(each)
    for pair in pairs:
        blocks.keep(block(pair))
        assert blocks.take(pair) is not None, "calls that have them, for good, are forgotten all the same"
    assert [blocks.knows(pair) for pair in pairs].count(True) <= 2
