"""Candidate against champion: the exported steps of both on the newest observations that neither has learnt from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from training import metrics
from training.evaluate import Track
from training.hindcast import hindcast
from training.job import Job
from training.paired import Paired, by_moment, diebold_mariano, usual_spacing
from training.sources import newest
from training.stepping import Stepper


@dataclass(frozen=True, slots=True)
class Contest:
    """What the two did on the same observations. `targets`: by name the unit, the loss, and each one's mean of it.

    `paired` tests the weighted sum of the targets' loss differences, each in units of the last value's mean loss; a
    moment that several series share counts once. `rows` observations were judged; `untouched` tells whether the
    champion is known never to have learnt from them.
    """

    champion: int
    rows: int
    untouched: bool
    paired: Paired
    targets: Mapping[str, Mapping[str, Any]]

    @property
    def text(self) -> str:
        """Who is better and how surely, as part of a sentence."""
        if self.paired.n == 0:
            return f"nothing is newer than what version {self.champion} has learnt from"
        better, found = ("better" if self.paired.mean > 0 else "worse"), self.paired
        return f"{better} than version {self.champion} over {found.n} moments (p = {found.p:.2g})"

    def as_json(self) -> dict[str, Any]:
        """For the manifest and the summary."""
        return {
            "champion": self.champion,
            "rows": self.rows,
            "untouched": self.untouched,
            "moments": self.paired.n,
            "advantage": self.paired.mean,
            "statistic": self.paired.statistic,
            "p": self.paired.p,
            "targets": {name: dict(each) for name, each in self.targets.items()},
        }


def contest(job: Job, tracks: Sequence[Track], version: int, champion: Manifest, stepper: Stepper) -> Contest:
    """Stream the champion behind `stepper` over the candidate's `tracks` and compare their forecasts of the holdout.

    The champion answers the same targets in the same order: a model's contract never changes.
    """
    values = [track.series.values for track in tracks]
    past = hindcast(stepper, champion, values, [track.judged for track in tracks], 1)
    known = [] if champion.trained_until is None else [champion.trained_until]
    if job.interval_s is not None:  # else holdouts of so many steps need not lie together, and little would be left
        # a series that ended early: the candidate knows those moments from the others
        known += [float(track.series.times[track.judged - 1]) for track in tracks]
    after, now = newest(known) if known else -np.inf, time.time()
    last = now if after <= now else np.inf  # of a clock that is ahead it is not known what is newer
    kept = [(each > after) & (each <= last) for each in (track.series.times[track.judged :] for track in tracks)]
    times = [track.series.times[track.judged :][mask] for track, mask in zip(tracks, kept, strict=True)]
    together = [np.zeros(len(each)) for each in times]
    whole, targets = sum(target.weight for target in job.targets), {}
    for k, target in enumerate(job.targets):
        feature = job.features[job.observed[k]]
        found: list[dict[str, NDArray[np.float64]]] = []
        for track, other, mask in zip(tracks, past, kept, strict=True):
            observed = track.observed(job.observed[k])
            before = track.series.values[track.judged - 1 : -1, job.observed[k]]
            forecasts = {"candidate": track.predicted(k), "champion": other.next[:, k, 0], "last_value": before}
            found.append(
                {
                    who: metrics.losses(target.loss, observed, forecast, feature.floor or 1e-6)[mask]
                    for who, forecast in forecasts.items()
                }
            )
        mean = {who: _mean([each[who] for each in found]) for who in ("candidate", "champion", "last_value")}
        targets[target.name] = {"unit": feature.unit, "loss": target.loss, **mean}
        share = target.weight / whole / (mean["last_value"] or 1.0)
        for i, each in enumerate(found):
            together[i] += share * (each["champion"] - each["candidate"])
    apart = job.interval_s
    if apart is None and len(tracks) > 1:
        apart = usual_spacing([track.series.times for track in tracks])
    return Contest(
        version,
        sum(map(len, times)),
        champion.trained_until is not None,
        diebold_mariano(by_moment(times, together, apart)),
        targets,
    )


def _mean(parts: Sequence[NDArray[np.float64]]) -> float:
    together = np.concatenate(parts)
    return float(together.mean()) if len(together) else 0.0
