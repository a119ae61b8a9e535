"""A history read a slice at a time is what its body parsed as a whole gives, or is refused in the same words."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import RecurveError
from service.http import history
from service.http.history import history_request
from tests.fakes import make_spec

NAMES = ("a", "b")
SPEC = make_spec(NAMES)
MOST = 60
SLICE = 40  # bytes: two or three observations
WHOLE = 10**9

rows = st.lists(st.lists(st.floats(-1e3, 1e3) | st.integers(-9, 9), min_size=2, max_size=2), min_size=1, max_size=40)
odd = st.sampled_from(
    [[], [1.0], [1.0, 2.0, 3.0], 1.0, None, "],[", "]]", ["]]", "],["], [1.0, "2"], [True, 1.0], [[1.0, 2.0]],
     [1e39, 1.0], [1.0, 10**400], {"a": 1.0}, {"a": 1.0, "b": 2.0}, {"a": {"b": 1.0}, "b": 2.0},
     {"a": 1.0, "b": 2.0, "}]": 3.0}]
)  # fmt: skip
more = st.fixed_dictionaries(
    {},
    optional={
        "times": st.lists(st.integers(1, 10**6), max_size=40),
        "step": st.sampled_from([1, 7, 0, "x"]),
        "gap": st.sampled_from(["fill", "nonsense"]),
        "observation": st.just([1.0, 2.0]),
        "horizon": st.just(2),
        "]]": st.just([[1.0], [2.0]]),
    },
)


def outcome(body, slice_bytes):
    try:
        read = history_request(body, SPEC, MOST, slice_bytes)
    except RecurveError as error:
        return type(error), error.detail, error.code, error.extra
    return read.observations.tobytes(), read.observations.shape, read.times, read.step, read.gap, read.horizon


@st.composite
def bodies(draw):
    observations = draw(rows)
    if draw(st.booleans()):
        observations = [dict(zip(draw(st.permutations(NAMES)), row, strict=True)) for row in observations]
    for _ in range(draw(st.integers(0, 1))):
        observations[draw(st.integers(0, len(observations) - 1))] = draw(odd)
    fields = {"observations": observations, **draw(more)}
    if draw(st.booleans()) and "times" in fields:
        fields["times"] = list(range(1, len(observations) + 1))
    if draw(st.integers(0, 9)) == 0:
        fields = dict(reversed(fields.items()))
    indent, separators = draw(st.sampled_from([(None, (",", ":")), (None, (" , ", " : ")), (2, None)]))
    return json.dumps(fields, indent=indent, separators=separators).encode()


@given(bodies())
def test_a_body_in_slices_is_the_body_as_a_whole(body):
    assert outcome(body, SLICE) == outcome(body, WHOLE)


@given(bodies(), st.data())
def test_a_damaged_body_is_refused_as_it_is_as_a_whole(body, data):
    at = data.draw(st.integers(0, len(body)))
    put = data.draw(
        st.sampled_from([b"", b",", b"]", b"[", b"}", b'"', b"]]", b"NaN", b"\xff", b',"observations":[1,2]'])
    )
    damaged = body[:at] + put + body[at + data.draw(st.integers(0, 3)) :]
    assert outcome(damaged, SLICE) == outcome(damaged, WHOLE)


@pytest.mark.parametrize("twice", [b"[]", b'["x"]', b"[[1,2]]", b"null"])
def test_of_observations_that_are_there_twice_the_same_ones_count(twice):
    body = b'{"observations":[%b],"observations":%b}' % (b",".join([b"[1.5,2.5]"] * 20), twice)
    assert outcome(body, SLICE) == outcome(body, WHOLE)


@pytest.mark.parametrize("pack", [list, lambda row: dict(zip(NAMES, row, strict=True))], ids=["lists", "objects"])
def test_long_histories_really_are_read_in_slices(pack):
    series = np.random.default_rng(4).normal(size=(5000, 2)).round(3)
    body = json.dumps({"observations": [pack(row) for row in series.tolist()], "step": 3, "gap": "restart"}).encode()
    assert len(body) > 2 * history.SLICE_BYTES
    cut = history._cut(body, SPEC, 5000, history.SLICE_BYTES)
    assert cut.observations.tobytes() == series.astype(np.float32).tobytes()
    read = history_request(body, SPEC, 5000)
    assert (read.observations.tobytes(), read.step, read.gap) == (cut.observations.tobytes(), 3, "restart")
