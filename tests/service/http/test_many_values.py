"""Many observations and times are read at once, and come to what one after the other comes to, errors included."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core import gaps
from service.core.errors import InvalidInput
from service.core.types import FeatureSpec
from service.http.observations import FEW, observations_array
from service.http.times import parse_time, parse_times
from tests.fakes import make_spec

NAMES = ("a", "b", "c")
LIMITS = {"minimum": -100.0, "maximum": 1e30}

good = st.one_of(st.integers(-100, 10**29), st.floats(-100, 1e30))
bad = st.sampled_from(
    [True, None, "1", [1], {}, float("nan"), float("inf"), -float("inf"), 1e39, 10**400, -(10**39), -101, 2e30]
)


def spec_of(columns):
    features = tuple(FeatureSpec(name, "u", **(LIMITS if name == "a" else {})) for name in NAMES[:columns])
    return replace(make_spec(NAMES[:columns]), features=features)


def result_of(call):
    """What a call returns as bytes, or how it refuses."""
    try:
        return np.asarray(call()).tobytes()
    except InvalidInput as error:
        return error.detail, error.code


def one_by_one(raw, spec):
    rows = [
        observations_array([one], [f"observations[{i}]"], spec)[0] for i, one in enumerate(raw)
    ]  # one alone is never read at once
    return np.array(rows, np.float32)


@st.composite
def histories(draw):
    columns = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["lists", "objects", "numbers"]))
    rows = draw(st.lists(st.lists(good, min_size=columns, max_size=columns), min_size=FEW + 1, max_size=3 * FEW))
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, columns - 1))] = draw(bad)
    raw = rows
    if kind == "objects":
        raw = [dict(zip(draw(st.permutations(NAMES[:columns])), row, strict=True)) for row in rows]
    elif kind == "numbers":
        raw = [row[0] for row in rows]
    if draw(st.booleans()):
        wrong = [[], [1.0] * (columns + 1), 1.0, {"a": 1.0}, {"z": 1.0, "b": 2.0, "c": 3.0}, None, "x"]
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.sampled_from(wrong))
    return spec_of(columns), raw


@given(histories())
def test_observations_are_those_of_one_after_the_other_and_the_same_is_refused(drawn):
    spec, raw = drawn
    assert result_of(lambda: observations_array(raw, "observations", spec)) == result_of(lambda: one_by_one(raw, spec))


@pytest.mark.parametrize("columns", [1, 3])
def test_lists_and_objects_of_the_same_values_are_the_same_observations(columns):
    values = np.random.default_rng(1).normal(0, 30, (100, columns))
    lists = [row.tolist() for row in values]
    objects = [dict(reversed(list(zip(NAMES, row, strict=False)))) for row in lists]
    expected = values.astype(np.float32).tobytes()
    for raw in (lists, objects):
        assert observations_array(raw, "observations", spec_of(columns)).tobytes() == expected


second = st.one_of(st.integers(-(10**10), 10**10), st.floats(-1e10, 1e10))
written = st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
no_time = st.sampled_from(
    [True, None, [], "x", "2023-11-14T10:00:00", float("nan"), float("inf"), 1e13, 10**400, "0001-01-01T00:00:00+05:00"]
)


@given(st.one_of(st.lists(second, min_size=1), st.lists(written, min_size=1)), st.lists(no_time, max_size=2), st.data())
def test_times_are_those_of_one_after_the_other_and_the_same_is_refused(times, wrong, data):
    for one in wrong:
        times.insert(data.draw(st.integers(0, len(times))), one)
    expected = result_of(lambda: [parse_time(one, f"times[{i}]") for i, one in enumerate(times)])
    assert result_of(lambda: parse_times(times, "times")) == expected


spans = st.lists(st.one_of(st.floats(-2, 8), st.sampled_from([0.5, 1, 1.5, 2.5, 3.5, 0.0, 0.4999])), min_size=20)


@given(spans, st.sampled_from([None, 1.0, 0.25, 7.0]))
def test_many_times_are_checked_and_counted_as_few_are(spans, interval_s):
    spec, times = make_spec(interval_s=interval_s), tuple(np.cumsum(spans).tolist())

    def of_all():
        gaps.check_times(spec, times, 50.0)
        return gaps.missing_steps(spec, times, len(times), float("nan"), 1)

    def of_pairs():
        missing = [0]
        for i, pair in enumerate(pairwise(times)):
            try:
                gaps.check_times(spec, pair, 50.0)
            except InvalidInput as error:
                which, _, detail = error.detail.partition(": ")
                raise InvalidInput(f"times[{i + int(which == 'times[1]')}]", detail) from None
            missing.append(gaps.missing_steps(spec, pair, 2, float("nan"), 1)[1])
        return missing

    assert result_of(of_all) == result_of(of_pairs)
