"""The baselines' forecasts of the test part of every series, from the same moments as the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.baselines import Baseline, ar, last_value, log_har, seasonal_naive
from training.job import Job
from training.sources import Series

Array = NDArray[Any]
LAGS = 24
TITLES = {"model": "this model", "last_value": "last value", "seasonal_naive": "seasonal naive", "log_har": "log-HAR"}


def title(name: str) -> str:
    """A forecaster's name for people."""
    return TITLES.get(name, f"AR({name[2:]})" if name.startswith("ar") else name.replace("_", " "))


class References:
    """Each baseline fitted for one target, series by series, on what comes before the test part.

    ``ahead[i][name]`` (n + 1, H): series i, from its origins judged - 1 ... the last; ``next[i][name]`` (n,): the same
    one step ahead, for its n test observations; both hold what could be fitted for that series. `names` are those that
    could be fitted for every series.
    """

    def __init__(self, job: Job, target: int, series: Sequence[Series], judged: Sequence[int], horizon: int) -> None:
        column = job.observed[target]
        volatility = job.targets[target].loss == "qlike"
        rows: list[dict[str, Array]] = []
        for each, start in zip(series, judged, strict=True):
            values = each.values[:, column].astype(np.float64)
            floor = job.features[column].floor or 1e-6
            fitted = _fitted(job, values[:start], horizon, floor if volatility else None)
            forecasts = {baseline.name: baseline.forecast(values, horizon)[start - 1 :] for baseline in fitted}
            rows.append({name: f for name, f in forecasts.items() if np.isfinite(f).all()})
        self.names = [name for name in rows[0] if all(name in row for row in rows)]
        self.ahead: list[Mapping[str, Array]] = list(rows)
        self.next: list[Mapping[str, Array]] = [{n: f[:-1, 0] for n, f in row.items()} for row in self.ahead]


def _fitted(job: Job, known: Array, horizon: int, floor: float | None) -> list[Baseline]:
    found: list[Baseline] = [last_value()]
    if job.season is not None:
        found.append(seasonal_naive(job.season))
    if len(known) >= 2 * LAGS + 2:
        found.append(ar(known, LAGS))
    if floor is not None and len(known) >= 30 + horizon:
        found.append(log_har(known, horizon, floor))
    return found
