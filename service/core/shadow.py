"""The shadow: each step of a client runs under the candidate as well, in the record's second track, unseen.

It runs after the served step and on its own state, so that nothing a candidate does can touch an answer. What is
compared are two predictions of the same observation that stood before it came: the one the client was told, and the
shadow's. So nothing is compared after a gap, nor at the first observation after either track was begun or rebuilt.

The difference of one step is the mean over the observed targets of (e_served^2 - e_shadow^2) / s^2, clipped to [-C, C]
and divided by C: within [-1, 1], above zero where the candidate was nearer. The spread s is known in advance. Bounded
differences are what a betting test takes (Waudby-Smith and Ramdas, Estimating means of bounded random variables by
betting, 2024).

A candidate that can't follow (its engine raises, or its state or prediction is no number) has lost the client: that
step counts -1, and so do all until its track stands again. It is begun anew with the client's own state, or rebuilt
once as many observations have come since as its context holds.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from service.core.absorb import Gap, Progress, fresh, rebuild
from service.core.record import NO_SUMS, Record, Track
from service.core.registry import Served
from service.core.requests import Paired
from service.core.scoring import Told, no_errors, score
from service.core.types import FloatArray, ModelSpec

logger = logging.getLogger(__name__)

PROMOTED = "promoted"  # the reason of the answer whose state was the shadow's until then
CLIP = 4.0  # squared spreads; how far beyond a forecast is off counts no more
LOST = -1.0  # what a step counts that the candidate could not follow
_LEAST_SPREAD = 1e-60  # its square is a number still


class Kept(NamedTuple):
    """A track that stands. `behind` counts the observations behind it, `second` that it is a shadow's so far."""

    track: Track
    behind: int
    second: bool


class Shadow(NamedTuple):
    """What a request makes of the shadow; `paired` is None where nothing was compared."""

    track: Track
    paired: Paired | None


def kept(record: Record, spec: ModelSpec) -> Kept | None:
    """The record's track of these weights, the first or the second; None if it has none that stands."""
    for i, track in enumerate(record.tracks):
        if track.fingerprint == spec.fingerprint:
            stands = (track.state.size, track.y.shape[1]) == (spec.initial_state.size, spec.columns)
            return Kept(track, int(track.sums[3]) if i else record.behind, i > 0) if stands else None
    return None


def is_due(record: Record, spec: ModelSpec) -> bool:
    """Whether the shadow's next step begins with a replay of the context: no track, or one lost for long."""
    if kept(record, spec) is not None:
        return False
    lost = _track(record, spec)
    return lost is None or lost.sums[3] >= spec.context_length


def told_before(served: Progress, plan: list[Gap], told: Told | None) -> list[FloatArray | None]:
    """For each observation that `served` absorbed by `plan` the prediction (K,) that stood before it, None after a gap.

    `told`: what the client was told of the first, by the very track that has absorbed it.
    """
    points = [None if told is None else told.point, *(y[:, 0] for y in served.outputs[:-1])]
    return [None if gap is not None else point for gap, point in zip(plan, points, strict=True)]


def follow(
    candidate: Served,
    served: ModelSpec,
    observations: FloatArray,
    plan: list[Gap],
    told: list[FloatArray | None] | None,
    record: Record | None,
    *,
    adaptive: bool = False,
) -> Shadow:
    """The candidate's track after ``observations`` (n, F), the same gaps before them as for the served one.

    `told` as from `told_before`, None if nothing is to be compared: a history. `record` None: the client's state
    begins anew, and its shadow with it. `adaptive`: its intervals follow its own errors as well, so that they fit from
    the first once it is promoted. Never raises.
    """
    walk = _begin(candidate, record, adaptive=adaptive)
    spread = spreads(served)
    for i, gap in enumerate(plan):
        stands, before = walk.step(observations[i], gap)
        if told is None:
            continue
        if not stands:
            walk.count(LOST)
        elif (point := told[i]) is not None and before is not None:
            walk.count(difference(served, spread, point, before, observations[i]))
    return Shadow(walk.track(), walk.paired())


def spreads(spec: ModelSpec) -> list[float]:
    """Each target's usual error as a standard deviation, known before the step: from the hold-out residuals at horizon
    1 as if they were normal, else the targets' own."""
    if spec.residuals is None or spec.level is None:
        return [max(target.scale, _LEAST_SPREAD) for target in spec.targets]
    widths = [high - low for low, high in spec.residuals[0].tolist()]
    of_one = 2 * _quantile(spec.level)
    pairs = zip(spec.targets, widths, strict=True)
    return [max(width / of_one if width > 0 else target.scale, _LEAST_SPREAD) for target, width in pairs]


def difference(
    spec: ModelSpec, spread: list[float], told: FloatArray, shadow: FloatArray, x: FloatArray
) -> float | None:
    """How much nearer ``shadow`` (K,) came to observation ``x`` (F,) than ``told`` (K,): in [-1, 1], None if no
    feature observes a target."""
    seen, total, targets = x.tolist(), 0.0, 0
    columns = zip(spec.observed.tolist(), told.tolist(), shadow.tolist(), spread, strict=True)
    for feature, ours, theirs, of_one in columns:
        if feature >= 0:
            one, other = seen[feature] - ours, seen[feature] - theirs
            total += (one * one - other * other) / (of_one * of_one)
            targets += 1
    return None if targets == 0 else min(max(total / targets, -CLIP), CLIP) / CLIP


@dataclass(slots=True)
class _Walk:
    """A candidate's track on its way through one request. `progress` is None while it is lost, `lost` for how many
    observations. `stood`: its prediction stood before the next observation came."""

    candidate: Served
    progress: Progress | None
    stood: bool
    sums: tuple[float, ...]
    lost: int
    steps: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def step(self, x: FloatArray, gap: Gap) -> tuple[bool, FloatArray | None]:
        """Absorb ``x`` (F,): whether the track stands now, and the prediction (K,) that stood before, if one did."""
        spec, engine, before = self.candidate.spec, self.candidate.engine, None
        try:
            if gap is not None:
                missing, policy = gap
                if policy == "fill" and spec.feedback is not None and self.progress is not None:
                    self.progress.fill(missing)
                elif policy != "fill" or spec.feedback is None:
                    stretch = None if self.progress is None else self.progress.stretch  # as of the served one it stays
                    self.progress = fresh(spec, engine, "restarted", "gap")
                    self.progress.stretch = stretch
            elif self.stood and self.progress is not None and self.progress.y is not None:
                before = self.progress.y[:, 0]
                _adapt(self.progress, x)
            if self.progress is None:
                self.lost += 1
                return False, None
            self.progress.step(x[None])
            why = None if _is_sound(self.progress) else "its state or prediction is no number"
        except Exception as error:  # noqa: BLE001  # whatever an unproven bundle makes a runtime raise: it is no answer's
            why = f"{type(error).__name__}: {error}"
        self.stood = why is None
        if why is not None:
            _tell_once(spec.name, spec.version, spec.fingerprint, why)
            self.progress, self.lost = None, 0
        return self.stood, before

    def count(self, difference: float | None) -> None:
        """Add one step's difference."""
        if difference is not None:
            self.steps += 1
            self.sum += difference
            self.squares += difference * difference

    def track(self) -> Track:
        """The track as the record keeps it; a lost one has no state, and a prediction without columns."""
        spec, progress = self.candidate.spec, self.progress
        steps, total, squares, _ = self.sums
        counted = steps + self.steps, total + self.sum, squares + self.squares
        if progress is None or progress.y is None:
            nothing = np.empty((len(spec.targets), 0), np.float32)
            return Track(spec.fingerprint, nothing[0], nothing, (*counted, float(self.lost)))
        sums = *counted, float(progress.behind)
        return Track(spec.fingerprint, progress.batch[0], progress.y, sums, progress.stretch or ())

    def paired(self) -> Paired | None:
        """The request's comparisons."""
        return None if self.steps == 0 else Paired(self.candidate.spec.fingerprint, self.steps, self.sum)


def _begin(candidate: Served, record: Record | None, *, adaptive: bool) -> _Walk:
    """The candidate's track as the record keeps it; made of the context if there is none."""
    spec, engine = candidate.spec, candidate.engine
    unstretched = (0.0,) * len(spec.targets) if adaptive else None
    if record is None:
        begun = fresh(spec, engine, "started")
        begun.stretch = unstretched
        return _Walk(candidate, begun, True, NO_SUMS, 0)
    track, here = _track(record, spec), kept(record, spec)
    sums = NO_SUMS if track is None else track.sums
    if here is not None:
        state = here.track.state[None]
        carried = Progress(spec, engine, state, here.track.y, record.context[:0], here.behind, "carried")
        carried.stretch = here.track.stretch or unstretched if adaptive else None
        return _Walk(candidate, carried, True, sums, 0)
    if not is_due(record, spec):
        return _Walk(candidate, None, False, sums, int(sums[3]))
    context = record.context if track is None else record.context[-spec.context_length :]  # since it was lost
    try:
        rebuilt = rebuild(spec, engine, context, "model_updated")
        why = None if rebuilt.status == "rebuilt" else "it can't be rebuilt from the client's context"
    except Exception as error:  # noqa: BLE001  # as in a step
        why = f"{type(error).__name__}: {error}"
    if why is not None:
        _tell_once(spec.name, spec.version, spec.fingerprint, why)
        return _Walk(candidate, None, False, sums, 0)
    rebuilt.stretch = unstretched
    return _Walk(candidate, rebuilt, False, sums, 0)


def _track(record: Record, spec: ModelSpec) -> Track | None:
    return next((track for track in record.tracks if track.fingerprint == spec.fingerprint), None)


def _adapt(progress: Progress, x: FloatArray) -> None:
    """Stretch the shadow's intervals by whether ``x`` (F,) lies within the one standing, as the served one's are."""
    if progress.stretch is not None and (told := progress.told()) is not None:
        nothing = no_errors(len(progress.spec.targets))
        seen = x.tolist()
        progress.stretch = score(nothing, progress.spec, *told.plain(), seen, seen, progress.stretch).stretch


def _is_sound(progress: Progress) -> bool:
    """Whether the state and the prediction are numbers, as many as the record keeps of them."""
    spec, state, y = progress.spec, progress.batch, progress.y
    if y is None or (state.nbytes, y.nbytes) != (spec.initial_state.nbytes, 4 * len(spec.targets) * spec.columns):
        return False
    return bool(np.isfinite(state).all()) and all(map(math.isfinite, y.ravel().tolist()))


@lru_cache(maxsize=16)
def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


@lru_cache(maxsize=64)
def _tell_once(model: str, version: int, fingerprint: str, why: str) -> None:
    """Log it, once in a process for each candidate and reason: it may come with every client."""
    extra = {"model": model, "version": version, "fingerprint": fingerprint[:12], "why": why}
    logger.warning("a candidate lost a client's track", extra=extra)
