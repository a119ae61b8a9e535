"""The chronological cut."""

import numpy as np
import pytest

from training.job import load_job
from training.sources import Series
from training.windows import TooShort, demand_residuals, split


def series(n, key="a"):
    return Series(key, np.arange(n, dtype=np.float64), np.arange(n, dtype=np.float32)[:, None])


@pytest.mark.parametrize("n", [100, 101, 3270, 7126, 43824])
def test_the_parts_follow_each_other_and_are_the_series(n):
    parts = split([series(n)], load_job("finance"))
    together = [parts.train[0], parts.validation[0], parts.test[0]]
    assert np.concatenate([part.times for part in together]).tolist() == list(range(n))
    assert np.concatenate([part.values[:, 0] for part in together]).tolist() == list(range(n))


def test_the_last_fifth_judges_and_a_tenth_before_it_stops_training():
    parts = split([series(1000)], load_job("finance"))
    assert (len(parts.train[0]), len(parts.validation[0]), len(parts.test[0])) == (700, 100, 200)


def test_every_series_is_cut_by_its_own_length():
    parts = split([series(1000), series(100, "b")], load_job("finance"))
    assert [len(part) for part in parts.test] == [200, 20]
    assert [part.id for part in parts.train] == ["a", "b"]


def test_a_series_too_short_for_three_parts_is_named():
    with pytest.raises(TooShort, match="'b' has 9"):
        split([series(1000), series(9, "b")], load_job("finance"))


def test_validation_parts_too_short_for_the_horizon_are_refused_and_say_what_is_needed():
    job = load_job("finance")
    demand_residuals(split([series(290)], job), 10)  # 29 validate: 20 residuals ten steps ahead
    demand_residuals(split([series(290), series(40, "b")], job), 10)
    with pytest.raises(TooShort, match=r"look 11 steps ahead.*needs 30"):
        demand_residuals(split([series(290)], job), 11)
    with pytest.raises(TooShort, match="look 500 steps ahead"):
        demand_residuals(split([series(290)] * 9, job), 500)
