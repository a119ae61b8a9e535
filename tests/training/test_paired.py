"""The paired test: what it gives by hand, and how often it is wrong where there is nothing to find."""

import math

import numpy as np
import pytest
from scipy import stats

from training.paired import by_moment, diebold_mariano, student_tail, usual_spacing


@pytest.mark.parametrize("freedom", [1, 4, 9, 30, 500])
@pytest.mark.parametrize("t", [-6.0, -1.0, 0.0, 1e-3, 0.7, 2.5, 12.0])
def test_the_tail_of_students_t_is_scipys(t, freedom):
    assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-9, abs=1e-15)


def test_ten_differences_by_hand():
    # Mean 5.5. Deviations -4.5 ... 4.5: squares sum to 82.5, products one apart to 2 (4.5*3.5 + 3.5*2.5 + 2.5*1.5 +
    # 1.5*0.5) - 0.25 = 57.75. With one lag the variance is 8.25 + 2 * 5.775 = 19.8; h = 2 corrects by
    # sqrt((10 + 1 - 4 + 2 / 10) / 10) = sqrt(0.72).
    found = diebold_mariano(np.arange(1, 11), lags=1)
    assert (found.n, found.mean) == (10, 5.5)
    assert found.statistic == pytest.approx(math.sqrt(0.72) * 5.5 / math.sqrt(1.98))
    assert found.p == pytest.approx(stats.t.sf(found.statistic, 9))


def test_without_lags_it_is_the_paired_t_test():
    d = np.random.default_rng(3).normal(0.2, 1.0, 40)
    found, known = diebold_mariano(d, lags=0), stats.ttest_1samp(d, 0.0, alternative="greater")
    assert (found.statistic, found.p) == (pytest.approx(known.statistic), pytest.approx(known.pvalue))


def test_a_variance_that_does_not_come_out_positive_is_weighted():
    d = np.tile([1.0, -1.0], 10) + 0.01  # each is followed by its opposite: the plain sum of autocovariances is < 0
    found = diebold_mariano(d, lags=1)
    assert 0 < found.statistic < math.inf
    assert found.p > 0.05


def rejected(make, n, runs, seed):
    random = np.random.default_rng(seed)
    return np.mean([diebold_mariano(make(random, n)).p < 0.05 for _ in range(runs)])


def independent(random, n):
    return random.normal(size=n)


def skewed(random, n):
    return random.normal(size=n) ** 2 - random.normal(size=n) ** 2


def following(random, n):
    shocks, d = random.normal(size=n + 50), np.zeros(n + 50)
    for t in range(1, n + 50):
        d[t] = 0.3 * d[t - 1] + shocks[t]
    return d[50:]


@pytest.mark.parametrize(("make", "n", "most"), [
    (independent, 24, 0.06), (independent, 200, 0.06), (skewed, 100, 0.06), (following, 200, 0.07),
])  # fmt: skip
def test_equals_are_told_apart_as_rarely_as_the_level_says(make, n, most):
    seed, runs = 11, 1_500
    share = rejected(make, n, runs, seed)
    print(f"seed {seed}: {make.__name__}, n = {n}: {share:.3f} of {runs} at level 0.05")
    assert 0.02 < share < most


def test_a_better_one_is_found_and_a_worse_one_never():
    def shifted(by):
        return lambda random, n: independent(random, n) + by

    assert rejected(shifted(0.3), 200, 200, 5) > 0.95
    assert rejected(shifted(-0.3), 200, 200, 5) == 0.0


@pytest.mark.parametrize("d", [[], [1.0] * 9, [2.0] * 50, [0.0] * 50])
def test_too_little_and_no_difference_at_all_decide_nothing(d):
    assert diebold_mariano(np.array(d)).p == 1.0


def test_series_observed_together_count_once():
    d = by_moment(
        [np.array([0.0, 3600.0]), np.array([10.0, 7205.0])], [np.array([1.0, 2.0]), np.array([3.0, 5.0])], 3600
    )
    assert d.tolist() == [2.0, 2.0, 5.0]
    assert by_moment([np.array([5.0, 1.0])], [np.array([1.0, 2.0])], None).tolist() == [2.0, 1.0]
    assert by_moment([], [], 60.0).tolist() == []


def test_the_usual_spacing_of_series_passes_over_pauses_and_what_came_at_once():
    days = 86_400.0 * np.array([0, 1, 2, 3, 4, 7, 8, 9, 10, 11])
    assert usual_spacing([days, days + 5]) == 86_400.0
    batches = (3_600.0 * np.arange(10)[:, None] + 1e-6 * np.arange(24)).ravel()
    assert usual_spacing([batches]) == pytest.approx(3_600.0)
    assert usual_spacing([]) is usual_spacing([np.array([5.0])]) is None


def test_copies_of_a_series_prove_no_more_than_the_one():
    times, d = np.arange(300.0), np.random.default_rng(8).normal(0.05, 1.0, 300)
    alone = diebold_mariano(by_moment([times], [d], 1.0))
    assert diebold_mariano(by_moment([times] * 20, [d] * 20, 1.0)).p == pytest.approx(alone.p)
