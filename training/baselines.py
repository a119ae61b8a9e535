"""Simple forecasts that a network must beat, in plain numpy and behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class Baseline(Protocol):
    """A forecaster of one series from its own past."""

    @property
    def name(self) -> str:
        """What reports and manifests call it."""
        ...

    def forecast(self, values: NDArray[np.floating], horizon: int = 1) -> Doubles:
        """``values`` (n,) raw, oldest first -> (n, horizon): row t forecasts t + 1 … t + horizon from values up to t.

        NaN where there is too little past.
        """
        ...


@dataclass(frozen=True, slots=True)
class LastValue:
    """Nothing changes."""

    name: str = "last_value"

    def forecast(self, values: NDArray[np.floating], horizon: int = 1) -> Doubles:
        return np.repeat(np.asarray(values, np.float64)[:, None], horizon, axis=1)


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """What was observed at the same point of the last season, `season` steps long."""

    season: int
    name: str = "seasonal_naive"

    def forecast(self, values: NDArray[np.floating], horizon: int = 1) -> Doubles:
        result = np.full((len(values), horizon), np.nan)
        for ahead in range(1, horizon + 1):
            back = -(-ahead // self.season) * self.season - ahead  # steps before t, in the last season that is known
            if back < len(values):
                result[back:, ahead - 1] = values[: len(values) - back]
        return result


@dataclass(frozen=True, slots=True)
class Autoregression:
    """Linear in the last `len(weights)` values (the latest first) with an intercept; further ahead it feeds itself."""

    intercept: float
    weights: Doubles
    name: str = "ar"

    def forecast(self, values: NDArray[np.floating], horizon: int = 1) -> Doubles:
        lags = len(self.weights)
        result = np.full((len(values), horizon), np.nan)
        if len(values) < lags:
            return result
        past = sliding_window_view(np.asarray(values, np.float64), lags)[:, ::-1]
        for ahead in range(horizon):
            following = self.intercept + past @ self.weights
            result[lags - 1 :, ahead] = following
            past = np.concatenate([following[:, None], past[:, :-1]], axis=1)
        return result


@dataclass(frozen=True, slots=True)
class LogHar:
    """Range volatility from the logarithm of its variance over the last day, week (5) and month (22) (Corsi 2009).

    Row h - 1 of ``weights`` (H, 4: intercept, day, week, month) and of ``residual_variances`` (H,) is horizon h, each
    fitted directly. The mean variance is exp(mean + s^2 / 2), s^2 the residual variance of its logarithm. Values and
    forecasts are volatilities: roots of variances. Smaller values than `floor` count as `floor`.
    """

    weights: Doubles
    residual_variances: Doubles
    floor: float
    name: str = "log_har"

    def forecast(self, values: NDArray[np.floating], horizon: int = 1) -> Doubles:
        if horizon > len(self.weights):
            raise ValueError(f"fitted for a horizon of {len(self.weights)}, not {horizon}")
        logarithms = self._known(_log_variances(values, self.floor))[:, :horizon]
        return np.exp((logarithms + self.residual_variances[:horizon] / 2) / 2)

    def _known(self, logarithms: Doubles) -> Doubles:
        return _har_terms(logarithms) @ self.weights.T


def last_value() -> LastValue:
    """The last value, for any horizon."""
    return LastValue()


def seasonal_naive(season: int) -> SeasonalNaive:
    """The value one season (`season` steps) before the step that is forecast."""
    return SeasonalNaive(season)


def ar(values: NDArray[np.floating], lags: int = 24) -> Autoregression:
    """An autoregression on `lags` values, by least squares on ``values`` (n,), which must not hold the test part."""
    known = np.asarray(values, np.float64)
    if len(known) < 2 * lags + 2:
        raise ValueError(f"{len(known)} values are too few for {lags} lags")
    mean = known.mean()  # taken out for the sake of the numbers: pressures of 1000 hPa would swamp the intercept
    past = sliding_window_view(known - mean, lags)[:-1, ::-1]
    design = np.concatenate([np.ones((len(past), 1)), past], axis=1)
    solution = np.linalg.lstsq(design, known[lags:] - mean, rcond=None)[0]
    weights = solution[1:]
    return Autoregression(float(solution[0] + mean * (1 - weights.sum())), weights, f"ar{lags}")


def log_har(values: NDArray[np.floating], horizon: int = 1, floor: float = 1e-6) -> LogHar:
    """A log-HAR by least squares on the volatilities ``values`` (n,), which must not hold the test part."""
    logarithms = _log_variances(values, floor)
    if len(logarithms) < 30 + horizon:
        raise ValueError(f"{len(logarithms)} values are too few for a month's mean and a horizon of {horizon}")
    terms = _har_terms(logarithms)[21:]
    weights, variances = [], []
    for ahead in range(1, horizon + 1):
        design, truth = terms[:-ahead], logarithms[21 + ahead :]
        solution = np.linalg.lstsq(design, truth, rcond=None)[0]
        weights.append(solution)
        variances.append(np.var(truth - design @ solution))
    return LogHar(np.stack(weights), np.asarray(variances), floor)


def _log_variances(values: NDArray[np.floating], floor: float) -> Doubles:
    logarithms: Doubles = 2 * np.log(np.maximum(np.asarray(values, np.float64), floor))
    return logarithms


def _har_terms(logarithms: Doubles) -> Doubles:
    """(n, 4): one, and the means over the last 1, 5 and 22 values; NaN where there are fewer."""
    columns = [np.ones(len(logarithms))]
    for length in (1, 5, 22):
        column = np.full(len(logarithms), np.nan)
        if len(logarithms) >= length:
            column[length - 1 :] = sliding_window_view(logarithms, length).mean(axis=1)
        columns.append(column)
    return np.stack(columns, axis=1)
