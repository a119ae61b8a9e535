"""Torn and foreign records under a running predictor: never a wrong prediction, never another error than is meant."""

import struct

import numpy as np
import pytest

from service.core import quarantine
from service.core.errors import ClientNotFound
from service.core.record import MAGIC, decode, encode
from service.core.sealed import quick_checksum
from service.core.types import ClientKey
from tests.desk import Desk, request
from tests.fakes import LeakyIntegrator, make_spec, serve


@pytest.fixture(scope="module")
def torn_desk():
    """A client with all a record can hold: context, requests with keys, a last answer of several rows, live errors."""
    desk = Desk(make_spec(("a", "b")))
    for i in range(6):
        desk.send((i, -i), (i + 1, 2 * i), idempotency_key=f"k{i}")
    return desk


def put(desk, blob, key=None):
    key = key or desk.key
    found = desk.store.load(key)
    assert desk.store.save(key, None if found is None else found.nonce, b"torn....", blob)


def is_corrupt(desk, blob, step):
    """Puts `blob` in the client's place: the next answer names it, goes on from the step, and is a fresh state's."""
    desk.store.delete(quarantine.place(desk.key))
    put(desk, blob)
    answer = desk.send((8.0, 4.0), step=step)
    assert (answer.state.status, answer.state.reason, answer.state.context) == ("restarted", "corrupt", 1)
    assert answer.step == step
    assert answer.previous is None
    assert not answer.replayed
    np.testing.assert_array_equal(answer.y[-1, :, 0], [4.0, 2.0])
    aside = quarantine.place(desk.key)
    assert quarantine.unwrap(aside, desk.store.load(aside).blob) == (desk.clock.now, blob)
    return answer


def test_every_bit_of_a_record_flipped_once_is_corrupt_and_the_number_goes_on(torn_desk):
    desk, whole = torn_desk, torn_desk.stored()
    for at in range(len(whole)):
        for bit in range(8):
            is_corrupt(desk, whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :], step=13)
    put(desk, whole)
    assert desk.send((0.0, 0.0), step=13).state.status == "carried"


def test_a_record_cut_at_any_length_or_continued_is_corrupt(torn_desk):
    whole = encode(torn_desk.key, decode(torn_desk.key, torn_desk.stored()))
    for size in range(len(whole)):
        is_corrupt(torn_desk, whole[:size], step=1042)
    for more in (b"\0", b"\xff" * 7, whole):
        is_corrupt(torn_desk, whole + more, step=1042)
    put(torn_desk, whole)


def test_another_format_version_is_corrupt_even_where_its_checksum_holds(torn_desk):
    whole = torn_desk.stored()
    for version in range(256):
        if version != MAGIC[3]:
            is_corrupt(torn_desk, MAGIC[:3] + bytes([version]) + whole[4:], step=7)
    put(torn_desk, whole)


def test_what_another_program_may_have_left_is_corrupt(torn_desk):
    whole, rng = torn_desk.stored(), np.random.default_rng(5)
    foreign = [b"", b"\0", b"null", b'{"step": 7}', bytes(len(whole)), b"\xff" * len(whole), whole[::-1]]
    foreign += [rng.bytes(size) for size in rng.integers(1, 4000, 50)]
    foreign += [MAGIC + rng.bytes(int(size)) for size in rng.integers(1, 4000, 50)]
    for blob in foreign:
        is_corrupt(torn_desk, blob, step=3)
    put(torn_desk, whole)


def sealed(key, body):
    return MAGIC + quick_checksum(key, body) + body


def test_a_header_that_promises_what_is_not_there_is_corrupt_even_where_the_checksum_holds(torn_desk):
    """Every field of the header driven to its ends: nothing reads beyond the bytes, or makes arrays of promises."""
    key, whole = torn_desk.key, torn_desk.stored()
    sizes = {"label": (76, "B"), "tracks": (77, "B"), "S": (78, "I"), "F": (82, "H"), "K": (84, "H"), "W": (86, "H")}
    sizes |= {"context": (88, "H"), "ring": (90, "H"), "rows": (111, "I"), "width": (115, "H")}
    for at, kind in sizes.values():
        true = struct.unpack_from(f"<{kind}", whole, at)[0]
        for told in {0, 1, true - 1, true + 1, 2 ** (8 * struct.calcsize(f"<{kind}")) - 1} - {true, -1}:
            changed = bytearray(whole)
            struct.pack_into(f"<{kind}", changed, at, told)
            is_corrupt(torn_desk, sealed(key, bytes(changed[12:])), step=21)
    for at in (93, 94):  # status, reason
        changed = bytearray(whole)
        changed[at] = 255
        is_corrupt(torn_desk, sealed(key, bytes(changed[12:])), step=21)
    put(torn_desk, whole)


def test_another_clients_record_is_corrupt_and_its_owner_is_untouched(torn_desk):
    desk, whole = torn_desk, torn_desk.stored()
    other = desk.key._replace(client="other")
    for key in (other, desk.key._replace(tenant="another"), desk.key._replace(model="another")):
        is_corrupt(desk, encode(key, decode(desk.key, whole)), step=5)
    desk.predictor.predict(other, request((1.0, 1.0)))
    theirs = desk.store.load(other)
    is_corrupt(desk, theirs.blob, step=5)
    assert desk.store.load(other) == theirs
    put(desk, whole)


def test_a_record_of_a_model_of_the_same_name_with_other_features_or_targets_is_corrupt():
    for spec in (make_spec(("a",)), make_spec(("a", "b", "c")), make_spec(("a", "b"), predicts=("a",))):
        other, desk = Desk(spec, engine=_Narrow(len(spec.targets))), Desk(make_spec(("a", "b")))
        other.predictor.predict(desk.key, request((1.0,) * len(spec.features)))
        is_corrupt(desk, other.stored(), step=2)


class _Narrow(LeakyIntegrator):
    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def step(self, x, state):
        y, following = super().step(x, state)
        return y[:, : self.targets], following


def test_every_call_but_a_step_finds_no_client_in_a_torn_record_and_deleting_or_priming_begins_anew(torn_desk):
    desk, whole = torn_desk, torn_desk.stored()
    torn = whole[:-1]
    for ask in (
        lambda: desk.predictor.inspect(desk.key),
        lambda: desk.predictor.forecast(desk.key, 3),
        lambda: desk.predictor.gates(desk.key, 3),
    ):
        put(desk, torn)
        with pytest.raises(ClientNotFound):
            ask()
        assert desk.stored() == torn
    assert desk.predictor.clients("default", "toy", None, 10).clients.count("c") == 1
    answer = desk.prime((1.0, 1.0), (2.0, 2.0))
    assert (answer.step, answer.state.status) == (2, "started")
    put(desk, torn)
    assert desk.predictor.forget(desk.key) is True
    assert desk.store.load(quarantine.place(desk.key)) is None
    assert desk.send((1.0, 1.0)).state.status == "started"
    put(desk, whole)


def test_what_comes_after_a_corrupt_record_is_kept_as_ever(torn_desk):
    desk, whole = torn_desk, torn_desk.stored()
    is_corrupt(desk, whole[:-1], step=70)
    replay = desk.send((8.0, 4.0), step=70)
    assert replay.replayed
    assert replay.state.reason == "corrupt"
    assert (desk.send((8.0, 4.0), step=71).state.status, desk.send((1.0, 1.0)).step) == ("carried", 72)
    put(desk, whole)


def test_a_torn_record_under_new_weights_restarts_under_them():
    desk = Desk(make_spec(("a", "b")))
    desk.send((1.0, 2.0))
    torn = desk.stored()[:-1]
    serve(desk.registry, make_spec(("a", "b"), version=2, fingerprint="11"), LeakyIntegrator(), generation=2)
    assert is_corrupt(desk, torn, step=9).version == 2


def test_the_checks_of_a_record_take_its_key_from_where_it_was_found(torn_desk):
    blob = torn_desk.stored()
    assert decode(torn_desk.key, blob).step > 0
    assert sealed(torn_desk.key, blob[12:]) == blob
    assert sealed(ClientKey("default", "toy", "d"), blob[12:]) != blob
