"""Betting on paired differences: how sure is it that the next ones are above zero, whenever one looks?

The observations x_t in [-1, 1] are the means of closed minutes over all clients. Hypothesis: E[x_t | past] <= 0, the
candidate is no better. Somebody who bets on the contrary, at each t a share l_t >= 0 chosen from the past alone, has
the wealth W_t = prod(1 + l_t x_t) from 1 on. Under the hypothesis W is a supermartingale, so by Ville's inequality the
chance that it ever reaches 1 / level is at most `level`, however often one looks and whenever one stops (Waudby-Smith
and Ramdas, Estimating means of bounded random variables by betting, JRSS B 2024; the bets are their aGRAPA). The
mirrored bet, on -x, tells when the candidate is worse.

What is assumed. The clients of one minute may be correlated at will: their mean is one observation. From minute to
minute the conditional mean has to be at most 0, which is more than a mean of 0: where differences of neighbouring
minutes are alike, the past tells the sign of the next, and the plain bet on two equal models crosses too often, in
about level^r of all cases, with r the variance of x over its long-run variance. So what counts is W^r, with r <= 1
estimated from the autocorrelations. A power below one only lowers a wealth above one, so the guarantee holds for any
r; under serial correlation it brings false crossings back to about `level` (the tests show how near). A correlation
over more than `LAGS` observations is not seen; longer minutes (`minute_s`) are the remedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_BET = 0.5  # of the wealth; with more at stake the bets follow serial correlation too closely
LEAST = 20  # observations before anything is decided: fewer do not show how alike neighbours are
LAGS = 32
PRIOR_VARIANCE = 0.02  # counts as one observation; any value is valid


@dataclass(frozen=True, slots=True)
class Standing:
    """What the observations say after each of them; all arrays (n,).

    ``better`` and ``worse``: natural logarithms of the wealth that counts, W^r, of either bet. ``share``: r. ``mean``,
    ``lower`` and ``upper``: the mean so far and its confidence sequence at `level`, valid at all n at once as the
    wealth is (the paper's predictable plug-in empirical Bernstein bounds, widened by 1 / r).
    """

    better: Floats
    worse: Floats
    share: Floats
    mean: Floats
    lower: Floats
    upper: Floats
    level: float

    @property
    def is_better(self) -> bool:
        """Whether the candidate is proven better, at the level and now."""
        return self._reached(self.better)

    @property
    def is_worse(self) -> bool:
        """Whether the candidate is proven worse, at the level and now."""
        return self._reached(self.worse)

    def _reached(self, wealth: Floats) -> bool:
        return len(wealth) >= LEAST and bool(wealth[-1] >= -math.log(self.level))


def standing(x: Floats, level: float) -> Standing:
    """What the observations ``x`` (n,), each in [-1, 1], say. Pure: the same observations, the same numbers."""
    share = independent_share(x)
    lower, upper = _bounds(x, share, level)
    return Standing(share * log_wealth(x), share * log_wealth(-x), share, _means(x), lower, upper, level)


def log_wealth(x: Floats) -> Floats:
    """The logarithm of W after each of the observations ``x`` (n,), bet on a mean above zero."""
    if not len(x):
        return np.zeros(0)
    counts = np.arange(2.0, len(x) + 2)
    mean = np.cumsum(x) / counts
    variance = (PRIOR_VARIANCE + np.cumsum((x - mean) ** 2)) / counts
    mean, variance = _before(mean, 0.0), _before(variance, PRIOR_VARIANCE)
    bets = np.clip(mean / (variance + mean**2), 0.0, MOST_BET)
    return np.cumsum(np.log1p(bets * x))


def independent_share(x: Floats) -> Floats:
    """r after each observation: the variance of ``x`` (n,) over its long-run variance, at most 1.

    Autocorrelations are summed over pairs of lags as long as the pairs are positive (Geyer, Practical Markov chain
    Monte Carlo, 1992).
    """
    n = len(x)
    counts = np.arange(1.0, n + 1)
    mean = np.cumsum(x) / counts
    covariances = np.zeros((LAGS, n))
    for lag in range(min(LAGS, n)):
        covariances[lag, lag:] = np.cumsum(x[lag:] * x[: n - lag])
    covariances = covariances / counts - mean**2
    correlations = covariances / np.maximum(covariances[0], 1e-300)
    pairs = correlations[0::2] + correlations[1::2]
    positive = np.logical_and.accumulate(pairs > 0, axis=0)
    return np.asarray(1.0 / np.maximum(2.0 * (pairs * positive).sum(axis=0) - 1.0, 1.0))


def _bounds(x: Floats, share: Floats, level: float) -> tuple[Floats, Floats]:
    """Lower and upper end of the confidence sequence; the paper's theorem 2 is for [0, 1]."""
    if not len(x):
        return np.zeros(0), np.zeros(0)
    y, counts = (x + 1) / 2, np.arange(1.0, len(x) + 1)
    mean = (0.5 + np.cumsum(y)) / (counts + 1)
    variance = (PRIOR_VARIANCE / 4 + np.cumsum((y - mean) ** 2)) / (counts + 1)
    mean, variance = _before(mean, 0.5), _before(variance, PRIOR_VARIANCE / 4)
    doubt = math.log(2 / level)
    bets = np.minimum(np.sqrt(2 * doubt / (variance * counts * np.log1p(counts))), 0.5)
    spent = np.cumsum((y - mean) ** 2 * (-np.log1p(-bets) - bets))
    total = np.cumsum(bets)
    centre, width = np.cumsum(bets * y) / total, (doubt / share + spent) / total
    return np.clip(2 * (centre - width) - 1, -1.0, 1.0), np.clip(2 * (centre + width) - 1, -1.0, 1.0)


def _means(x: Floats) -> Floats:
    return np.cumsum(x) / np.arange(1.0, len(x) + 1)


def _before(values: Floats, first: float) -> Floats:
    """What was known before each observation."""
    return np.concatenate(([first], values[:-1]))
