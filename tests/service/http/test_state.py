"""States move whole, are checked before they are kept, and go on where they stood."""

import json
import math
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.record import MAGIC, RING, LiveErrors, decode
from service.core.sealed import SEAL_SIZE, seal
from service.core.types import ClientKey
from tests.fakes import LeakyIntegrator, make_spec, serve
from tests.service.http.conftest import HOUR, Api, is_problem
from tests.service.http.envelopes import blob_of, sealed, with_blob, with_record
from tests.service.http.test_any_body import anything, steady

T0 = 1_699_920_000.0


def path(client, rest="/state", model="toy"):
    return f"/v1/models/{model}/clients/{client}{rest}"


def export(api, client="c", model="toy"):
    answer = api.send("GET", path(client, model=model))
    assert answer.status_code == HTTPStatus.OK, answer.get_data(as_text=True)
    return answer.json


def bring(api, document, client="d", query="", model="toy"):
    return api.send("PUT", path(client, model=model) + query, document)


def brought(api, document, client="d", query="", model="toy", status=201):
    answer = bring(api, document, client, query, model)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.json


def fork(api, to, client="c"):
    return api.send("POST", path(client, "/fork"), {"to": to})


def value(answer):
    return answer["prediction"]["a"]["value"]


# -- export and import ---------------------------------------------------------------------------------------------


def test_an_exported_state_describes_itself(api):
    for observed in (4.0, 8.0):
        api.predict(observed)
    document = export(api)
    assert document == sealed(document)
    assert document | {"record": "", "sha256": ""} == {
        "format": "recurve-state/1",
        "model": "toy",
        "client": "c",
        "features": ["a"],
        "targets": ["a"],
        "fingerprint": "00" * 32,
        "step": 2,
        "context": 2,
        "created": "2023-11-14T22:13:20.000Z",
        "touched": "2023-11-14T22:13:20.000Z",
        "record": "",
        "sha256": "",
    }


def test_names_of_any_script_are_sealed_as_documented(api):
    api.predict(4.0, client="%E6%9D%B1-%C3%A9")
    document = export(api, "%E6%9D%B1-%C3%A9")
    assert (document["client"], document) == ("\u6771-\u00e9", sealed(document))
    assert brought(api, json.dumps(document, indent=2).encode())["step"] == 1


@pytest.mark.parametrize("other", [False, True], ids=["this service", "another one"])
def test_an_imported_state_goes_on_as_the_original_does(api, other):
    for observed in (4.0, 8.0, 5.0):
        api.predict(observed)
    there = Api() if other else api
    answer = brought(there, export(api))
    assert answer == {
        "model": "toy",
        "version": 1,
        "client": "d",
        "fingerprint": "00" * 32,
        "step": 3,
        "state": {"status": "carried", "reason": None, "context": 3, "filled": 0},
    }
    for observed in (1.0, -7.0):
        ours, theirs = api.predict(observed), there.predict(observed, client="d")
        assert theirs == ours | {"client": "d"}


def test_the_protection_of_retries_moves_along(api):
    there = Api()
    api.predict(4.0, time=T0)
    first = api.post({"observation": 8.0}, headers={"Idempotency-Key": "k-2"})
    brought(there, export(api), client="c")
    again = there.post({"observation": 8.0}, headers={"Idempotency-Key": "k-2"})
    assert (again.headers["Idempotent-Replay"], again.get_data()) == ("true", first.get_data())
    is_problem(there.post({"observation": 4.0, "time": T0, "step": 1}), 409, "already_absorbed", expected_step=3)
    assert there.predict(5.0, step=3)["step"] == 3


def test_the_same_import_again_is_answered_again_and_moves_nothing(api):
    api.predict(4.0)
    document = export(api)
    first = bring(api, document)
    before = api.record("d")
    api.clock.now += 5
    again = bring(api, document)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json == first.json
    assert (again.headers.get("Idempotent-Replay"), first.headers.get("Idempotent-Replay")) == ("true", None)
    assert api.record("d") == before


def test_a_client_that_exists_is_overwritten_only_on_demand(api, refused):
    api.predict(4.0)
    document = export(api)
    api.predict(8.0, client="d")
    api.predict(8.0, client="d")
    refused(lambda: bring(api, document), 409, "client_exists", client="d")
    assert brought(api, document, query="?replace=true", status=200)["step"] == 1
    assert api.predict(8.0, client="d", step=2)["prediction"]["a"]["value"] == 5.0


def test_an_export_can_be_taken_back_after_the_client_was_deleted(api):
    api.predict(4.0)
    document = export(api)
    api.send("DELETE", path("c", ""))
    brought(api, document, client="c")
    assert value(api.predict(8.0, step=2)) == 5.0


def test_an_expired_state_may_be_rescued(api):
    api.predict(4.0)
    api.clock.now += 8 * 24 * HOUR
    brought(api, export(api))
    assert api.predict(8.0, client="d")["state"]["status"] == "carried"


def test_an_expired_client_is_rescued_in_its_own_place_on_demand(api, refused):
    """Its own export is what is there already; only that does not make it heard of again."""
    api.predict(4.0)
    api.clock.now += 8 * 24 * HOUR
    document = export(api)
    refused(lambda: bring(api, document, client="c"), 409, "client_exists", client="c")
    assert brought(api, document, client="c", query="?replace=true", status=200)["state"]["status"] == "carried"
    assert api.predict(8.0, step=2)["state"]["status"] == "carried"


def test_labels_of_another_repository_do_not_count_here(api):
    api.predict(4.0)

    def elsewhere(record):
        record.label, record.generation = "trial", 900

    brought(api, with_record(export(api), elsewhere))
    record = decode(ClientKey("default", "toy", "d"), api.record("d").blob)
    assert (record.label, record.generation) == ("stable", 1)


def test_nothing_is_exported_of_a_client_that_is_not_there(api):
    is_problem(api.send("GET", path("nobody")), 404, "client_not_found")
    is_problem(api.send("GET", path("c", model="none")), 404, "model_not_found")
    is_problem(bring(api, {}, model="none"), 404, "model_not_found")
    is_problem(fork(api, "d", client="nobody"), 404, "client_not_found")


# -- other weights -------------------------------------------------------------------------------------------------


def other_weights(api, leak=0.25, **spec):
    serve(api.registry, make_spec(name="toy", version=2, fingerprint="11", **spec), LeakyIntegrator(leak), generation=2)


def make_candidate(api):
    """The served version becomes the candidate, beside other weights."""
    old = api.registry.model("toy").version(1)
    other_weights(api)
    new = api.registry.model("toy")
    both = replace(new, labels={"stable": 2, "candidate": 1}, versions={1: old, 2: new.version(2)})
    api.registry.replace({**api.registry.models, "toy": both})


def pinned(record):
    record.label = "candidate"


def test_a_state_of_other_weights_is_refused_by_name(api, refused):
    api.predict(4.0)
    document = export(api)
    other_weights(api)
    served = {"version": 2, "fingerprint": "11" * 32}
    for change in (document, sealed(document, client="c")):
        refused(lambda state=change: bring(api, state), 409, "foreign_state", client="d", fingerprint="00" * 32)
    assert bring(api, document).json["served"] == served


def test_asked_to_it_is_rebuilt_and_the_next_answer_says_so(api):
    for observed in (4.0, 8.0):
        api.predict(observed)
    document = export(api)
    there = Api()
    other_weights(there)
    answer = brought(there, document, query="?rebuild=true")
    rebuilt = {"status": "rebuilt", "reason": "model_updated", "context": 2, "filled": 0}
    assert (answer["version"], answer["fingerprint"], answer["state"]) == (2, "00" * 32, rebuilt)
    assert there.send("GET", path("d", "/forecast?horizon=1")).json["state"]["status"] == "rebuilt"
    alone = Api()
    other_weights(alone)
    for observed in (4.0, 8.0):
        alone.predict(observed)
    answer, expected = there.predict(1.0, client="d"), alone.predict(1.0)
    assert answer["state"] == rebuilt | {"context": 3}
    assert (answer["step"], answer["prediction"]) == (3, expected["prediction"])
    assert there.predict(1.0, client="d")["state"]["status"] == "carried"


def test_a_state_that_these_weights_cannot_be_rebuilt_from_is_refused(api, refused):
    for observed in (8e37, 8e37):
        api.predict(observed)
    document = export(api)
    other_weights(api, leak=-9.0)
    with np.errstate(all="ignore"):
        refused(lambda: bring(api, document, query="?rebuild=true"), 422, "unsupported", client="d")


def test_a_state_of_the_candidates_weights_is_foreign_to_a_client_of_stable(api, refused):
    """It would be rebuilt at the next step: that has to be asked for, wherever the other weights are."""
    api.predict(4.0)
    document = export(api)
    make_candidate(api)
    refused(lambda: bring(api, document), 409, "foreign_state", client="d")
    assert brought(api, with_record(document, pinned))["version"] == 1


def test_a_state_of_the_candidates_weights_has_their_size(api, refused):
    api.predict(4.0)
    document = export(api)
    make_candidate(api)
    wrong = with_record(document, in_track(state=np.zeros(2, f32)))
    for state, query in ((with_record(wrong, pinned), ""), (wrong, "?rebuild=true")):
        refused(lambda s=state, q=query: bring(api, s, query=q), 422, "invalid", client="d", field="record")


def test_a_state_that_is_none_of_its_weights_once_they_are_served_is_not_stepped(api):
    api.predict(4.0)
    document = export(api)

    def unknown(record):
        in_track(state=np.zeros(2, f32), fingerprint="11" * 32)(record)

    brought(api, with_record(document, unknown), query="?rebuild=true")
    other_weights(api)
    state = api.predict(8.0, client="d")["state"]
    assert (state["status"], state["reason"]) == ("restarted", "corrupt")


# -- whatever comes is checked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": "recurve-state/2"}, "format"),
        ({"format": 1}, "format"),
        ({"record": "AAAA"}, "record"),
        ({"record": "no base64!"}, "record"),
        ({"record": "ä"}, "record"),
        ({"record": ""}, "record"),
        ({"client": "e"}, "record"),
        ({"model": "other"}, "record"),
        ({"step": 3}, "step"),
        ({"context": 1}, "context"),
        ({"fingerprint": "11" * 32}, "fingerprint"),
        ({"created": None}, "created"),
        ({"touched": "2024-01-01T00:00:00.000Z"}, "touched"),
        ({"features": ["b"]}, "features"),
        ({"features": []}, "features"),
        ({"targets": ["a", "a"]}, "targets"),
    ],
    ids=str,
)
def test_a_document_whose_words_are_not_the_records_is_refused(api, refused, change, field):
    for observed in (4.0, 8.0):
        api.predict(observed)
    document = sealed(export(api), **change)
    refused(lambda: bring(api, document), 422, "invalid", client="d", field=field)


def test_a_changed_document_is_refused_before_anything_else_is_believed(api, refused):
    api.predict(4.0)
    document = export(api)
    for name in ("model", "client", "fingerprint", "record", "created", "sha256"):
        changed = {**document, name: ("A" if document[name][0] != "A" else "B") + document[name][1:]}
        refused(lambda state=changed: bring(api, state), 422, "invalid", client="d", field="sha256")
    for name in document:
        without = {one: document[one] for one in document if one != name}
        refused(lambda state=without: bring(api, state), 422, "invalid", client="d", field=name)
    refused(lambda: bring(api, {**document, "more": 1}), 422, "invalid", client="d", field="more")
    refused(lambda: bring(api, document, query="?force=true"), 422, "invalid", client="d", field="force")
    refused(lambda: bring(api, document, query="?rebuild=1"), 422, "invalid", client="d", field="rebuild")


def test_a_record_with_any_bit_flipped_is_refused(api):
    """With a document checksum that holds: it is the record itself that is found out."""
    api.predict(4.0)
    document = export(api)
    whole = blob_of(document)
    for at in range(len(whole)):
        torn = bytearray(whole)
        torn[at] ^= 1 << (at % 8)
        is_problem(bring(api, with_blob(document, bytes(torn))), 422, "invalid", field="record")
        if at % 7 == 0:
            is_problem(bring(api, with_blob(document, whole[:at])), 422, "invalid", field="record")
    assert api.record("d") is None


def change(**fields):
    def apply(record):
        for name, content in fields.items():
            setattr(record, name, content)

    return apply


def in_track(**fields):
    def apply(record):
        record.tracks = (replace(record.tracks[0], **fields),)

    return apply


def in_answer(**fields):
    def apply(record):
        record.last = replace(record.last, **fields)

    return apply


f32 = np.float32
NEVER_WRITTEN = {
    "a state that is not a number": in_track(state=np.array([np.nan], f32)),
    "an infinite state": in_track(state=np.array([np.inf], f32)),
    "an infinite prediction": in_track(y=np.array([[1, np.inf, 2]], f32)),
    "paired sums that are none": in_track(sums=(math.nan,) * 4),
    "stretches that are none": in_track(stretch=(math.nan,)),
    "intervals wider than any": in_track(stretch=(99.0,)),
    "an infinite anomaly": in_answer(anomaly=np.array([np.inf], f32)),
    "a state of another size": in_track(state=np.zeros(2, f32)),
    "a prediction of another width": in_track(y=np.zeros((1, 2), f32)),
    "a shadow": lambda record: setattr(record, "tracks", record.tracks * 2),
    "no context": change(context=np.empty((0, 1), f32)),
    "an infinite observation": change(context=np.array([[1], [np.inf], [2]], f32)),
    "a missing newest observation": change(context=np.array([[1], [np.nan]], f32)),
    "more context than there is": change(context=np.zeros((600, 1), f32)),
    "step 0": change(step=0, behind=0, ring=b""),
    "a step beyond all counting": change(step=2**60),
    "more behind it than steps": change(behind=3),
    "a generation beyond all counting": change(generation=2**60),
    "created never": change(created=math.nan),
    "touched in the future": change(touched=1_700_000_000.0 + 2 * HOUR),
    "a last time in the future": change(last_time=math.inf),
    "too many requests": change(ring=bytes(8 + 8) + (b"\1" + bytes(7)) * 2 + bytes(32) * RING),
    "requests of later steps": change(ring=bytes(16) + (b"\7" + bytes(7)) * 2),
    "live errors below nothing": change(live=LiveErrors(1, 1.0, (-1.0, 0.0, 0.0, 0.0))),
    "live errors of no weight": change(live=LiveErrors(1, 0.0, (0.0,) * 4)),
    "live errors that are none": change(live=LiveErrors(1, math.inf, (0.0,) * 4)),
    "an answer without a row": in_answer(y=np.empty((0, 1, 3), f32), interval=None),
    "an answer that is not finite": in_answer(y=np.full((1, 1, 3), np.nan, f32)),
    "an interval that is not finite": in_answer(interval=np.full((1, 1, 2), np.inf, f32)),
    "a level that is none": in_answer(level=7.0),
    "an answer seen at no time": in_answer(last_seen=math.nan),
}


@pytest.mark.parametrize("crafted", NEVER_WRITTEN.values(), ids=NEVER_WRITTEN)
def test_a_record_that_the_service_never_writes_is_refused(api, refused, crafted):
    for observed in (4.0, 8.0):
        api.predict(observed)
    document = with_record(export(api), crafted)
    with np.errstate(all="raise"):
        for query in ("", "?rebuild=true"):
            code = bring(api, document, query=query).json["code"]
            assert code in ("invalid", "not_finite")
            refused(lambda q=query: bring(api, document, query=q), 422, code, client="d", field="record")


def test_a_record_whose_label_is_no_text_is_refused(api, refused):
    api.predict(4.0)
    document, key = with_record(export(api), change(label="x" * 250)), ClientKey("", "toy", "c")
    body = blob_of(document)[SEAL_SIZE:].replace(b"x" * 250, b"\xff" * 250)
    crafted = with_blob(document, seal(MAGIC, key, body))
    refused(lambda: bring(api, crafted), 422, "invalid", client="d", field="record")


@pytest.mark.parametrize("count", [-1, 2**64, 10**30])
@pytest.mark.parametrize("field", ["step", "context"])
def test_a_count_beyond_every_records_is_refused(api, refused, field, count):
    api.predict(4.0)
    document = sealed(export(api), **{field: count})
    refused(lambda: bring(api, json.dumps(document).encode()), 422, "invalid", client="d", field=field)


def test_a_state_of_another_model_is_refused(api, refused):
    api.predict(4.0)
    refused(lambda: bring(api, export(api), model="hourly"), 422, "invalid", client="d", model="hourly", field="model")
    document = export(api)
    serve(api.registry, make_spec(("b",), name="toy"), api.engine)
    refused(lambda: bring(api, document), 422, "invalid", client="d", field="features")


def test_steps_filled_in_are_refused_where_the_model_fills_none(api, refused):
    api.predict([4.0, 1.0], model="half")
    api.predict([8.0, 1.0], model="half")

    def filled(record):
        record.context = np.array([[1, 1], [np.nan, np.nan], [2, 2]], np.float32)

    document = with_record(export(api, model="half"), filled)
    refused(lambda: bring(api, document, model="half"), 422, "invalid", client="d", model="half", field="record")


def test_a_half_missing_observation_is_refused(api, refused):
    api.predict([4.0, 1.0], model="half")

    def torn(record):
        record.context = np.array([[1, np.nan], [2, 2]], np.float32)

    document = with_record(export(api, model="half"), torn)
    refused(lambda: bring(api, document, model="half"), 422, "not_finite", client="d", model="half", field="record")


def test_a_body_beyond_all_bounds_is_refused(api):
    is_problem(bring(api, b" " * 20_001), 413, "body_too_large")
    is_problem(bring(api, b'{"format": [' + b"{}," * 5000 + b"{}]}"), 400, "malformed_body")
    is_problem(bring(api, b""), 400, "malformed_body")
    is_problem(api.send("POST", path("c", "/fork"), b"[" * 3999), 400, "malformed_body")


documents = st.fixed_dictionaries(
    {},
    optional={
        "format": st.just("recurve-state/1") | anything,
        "model": st.just("toy") | anything,
        "client": st.text(max_size=4) | anything,
        "features": st.lists(st.text(max_size=3), max_size=3) | anything,
        "targets": anything,
        "fingerprint": anything,
        "step": st.integers() | anything,
        "context": anything,
        "created": anything,
        "touched": anything,
        "record": st.text(alphabet="QkFB=\n", max_size=12) | anything,
        "sha256": anything,
        "to": anything,
    },
)


@steady
@given(change=documents, seal=st.booleans(), whole=st.booleans())
def test_any_document_is_taken_or_refused(change, seal, whole):
    api = Api()
    api.predict(4.0)
    document = {**export(api), **change} if whole else change
    if seal:
        with suppress(UnicodeEncodeError):  # half a surrogate pair: no JSON, sent as it is
            document = sealed(document)
    before = api.record()
    for answer in (bring(api, json.dumps(document).encode()), api.send("POST", path("c", "/fork"), document)):
        if answer.status_code in (200, 201):
            assert answer.json["step"] == 1
        else:
            assert answer.status_code in (400, 413, 422), answer.get_data(as_text=True)
            is_problem(answer, answer.status_code, answer.json["code"])
    assert api.record() == before


# -- fork -----------------------------------------------------------------------------------------------------------


def test_a_fork_goes_on_from_the_same_step_on_its_own(api):
    for observed in (4.0, 8.0, 5.0):
        api.predict(observed)
    answer = fork(api, "d")
    assert answer.status_code == HTTPStatus.CREATED
    assert (answer.json["client"], answer.json["step"], answer.json["state"]["status"]) == ("d", 3, "carried")
    ours, theirs = api.predict(1.0), api.predict(1.0, client="d")
    assert theirs == ours | {"client": "d"}
    assert value(api.predict(100.0)) != value(api.predict(1.0, client="d"))
    assert api.send("GET", path("d", "")).json["created"] == "2023-11-14T22:13:20.000Z"


def test_a_fork_begins_a_life_of_its_own(api):
    api.predict(4.0)
    api.clock.now += 6 * 24 * HOUR
    fork(api, "d")
    seen = api.send("GET", path("d", "")).json
    assert seen["created"] == seen["touched"] == "2023-11-20T22:13:20.000Z"


def test_a_fork_knows_the_originals_steps_and_not_its_requests(api):
    api.predict(4.0, time=T0)
    sent = {"observation": 8.0, "time": T0 + 60}
    api.post(sent, headers={"Idempotency-Key": "k"})
    fork(api, "d")
    is_problem(api.post({"observation": 8.0, "step": 2}, "d"), 409, "step_conflict", expected_step=3)
    is_problem(api.post(sent, "d"), 409, "time_conflict", expected_step=3)
    answer = api.post({"observation": 8.0}, "d", headers={"Idempotency-Key": "k"})
    assert (answer.json["step"], "Idempotent-Replay" in answer.headers) == (3, False)


def test_the_same_fork_again_is_answered_again(api):
    api.predict(4.0)
    first, again = fork(api, "d"), fork(api, "d")
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json, again.headers["Idempotent-Replay"]) == (first.json, "true")


def test_a_fork_never_overwrites_a_client(api, refused):
    api.predict(4.0)
    fork(api, "d")
    api.predict(8.0, client="d")
    refused(lambda: fork(api, "d"), 409, "client_exists", client="d")
    refused(lambda: fork(api, "c"), 409, "client_exists")


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "\ufffd", "a/b"])
def test_a_fork_needs_a_name_that_a_client_can_have(api, name):
    api.predict(4.0)
    is_problem(fork(api, name), 422, "invalid", field="to")


def test_an_expired_state_is_not_forked(api):
    """Its own next answer would say `expired`; a copy must not be carried on as if it had not."""
    api.predict(4.0)
    api.clock.now += 8 * 24 * HOUR
    is_problem(fork(api, "d"), 404, "client_not_found")
    assert api.view("d") is None


def test_a_fork_of_a_state_of_old_weights_is_rebuilt_at_its_next_step(api):
    api.predict(4.0)
    other_weights(api)
    assert fork(api, "d").json["state"]["reason"] == "model_updated"
    assert api.predict(8.0, client="d")["prediction"] == api.predict(8.0)["prediction"]


# -- room, stores, many -------------------------------------------------------------------------------------------


def test_moving_needs_room_for_a_new_client_and_none_for_one_that_is_there():
    api = Api(max_clients=2)
    api.predict(4.0)
    document = export(api)
    brought(api, document)
    for answer in (bring(api, document, "e"), fork(api, "e")):
        is_problem(answer, 429, "at_capacity")
    brought(api, document, client="c", query="?replace=true", status=200)
    assert api.view("e") is None
    api.send("DELETE", path("d", ""))
    assert fork(api, "e").status_code == HTTPStatus.CREATED


def test_a_store_that_is_away_moves_nothing(api):
    api.predict(4.0)
    document = export(api)
    api.store.down = True
    for answer in (
        api.send("GET", path("c")),
        bring(api, document),
        fork(api, "d"),
        api.send("DELETE", "/v1/models/toy/clients?prefix=c"),
    ):
        is_problem(answer, 503, "store_unavailable")
    api.store.down = False
    assert (api.view("d"), api.view()["step"]) == (None, 1)


def names(api, query=""):
    found, after = [], ""
    while after is not None:
        page = api.send("GET", f"/v1/models/toy/clients?limit=2{query}{after and '&after=' + after}").json
        assert len(page["clients"]) <= 2
        found += page["clients"]
        after = page["next"]
    return sorted(found)


def test_clients_are_listed_and_deleted_by_the_beginning_of_their_names(api):
    for client in ("roof-1", "roof-2", "roof-3", "root", "cellar", "%C3%A9-roof-"):
        api.predict(1.0, client=client)
    api.predict(1.0, client="roof-1", model="hourly")
    assert names(api, "&prefix=roof-") == ["roof-1", "roof-2", "roof-3"]
    assert names(api, "&prefix=nothing") == []
    answer = api.send("DELETE", "/v1/models/toy/clients?prefix=roof-")
    assert (answer.status_code, answer.json) == (200, {"model": "toy", "deleted": 3, "next": None})
    assert names(api) == ["cellar", "root", "é-roof-"]
    assert api.view("roof-1", "hourly") is not None
    assert api.send("DELETE", "/v1/models/toy/clients?prefix=roof-").json["deleted"] == 0


@pytest.mark.parametrize("query", ["", "?prefix=", "?all=true", "?prefix=a&all=true", "?prefix=&all=yes"])
def test_all_clients_are_deleted_only_if_that_is_said(api, query):
    api.predict(1.0)
    is_problem(api.send("DELETE", f"/v1/models/toy/clients{query}"), 422, "invalid")
    assert names(api) == ["c"]


def test_all_clients_are_deleted_if_that_is_said(api):
    for client in "abc":
        api.predict(1.0, client=client)
    assert api.send("DELETE", "/v1/models/toy/clients?prefix=&all=true").json["deleted"] == 3
    assert names(api) == []
