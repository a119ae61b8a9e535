"""Moving a state through observations: stepping, filling what is missing, rebuilding from a context."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from service.core.errors import InvalidInput
from service.core.lookahead import bounds, fed_back, stretched
from service.core.ports import Engine
from service.core.record import LiveErrors
from service.core.scoring import Told, score
from service.core.series import walk
from service.core.types import FloatArray, GapPolicy, ModelSpec, Status

Gap = tuple[int, GapPolicy] | None  # missing steps before an observation and what to do about them


@dataclass(slots=True)
class Progress:
    """A client's state on its way through one request; nothing of it counts until the record is saved.

    ``batch`` (1, S) the state, ``y`` (K, W) the prediction standing, None for a fresh state. The context is
    ``base`` (c, F) followed by `rows`, (F,) each. `behind` counts the observations behind the state. `outputs`
    holds the prediction after each observation, (K, W) each. `stretch`: the intervals' (Track); None: they are the
    model's own and stay so. `intervals`, (K, 2) each, `marks` and ``anomaly`` (K,) are of the observations scored.
    """

    spec: ModelSpec
    engine: Engine
    batch: FloatArray
    y: FloatArray | None
    base: FloatArray
    behind: int
    status: Status
    reason: str | None = None
    filled: int = 0
    last_seen: float | None = None
    rows: list[FloatArray] = field(default_factory=list)
    outputs: list[FloatArray] = field(default_factory=list)
    stretch: tuple[float, ...] | None = None
    intervals: list[FloatArray] = field(default_factory=list)
    marks: list[float] | None = None
    anomaly: FloatArray | None = None

    def step(self, x: FloatArray) -> None:
        """Absorb one observation ``x`` (1, F)."""
        out, self.batch = self.engine.step(x, self.batch)
        self.y = out[0]
        self.behind += 1
        self.rows.append(x[0])
        self.outputs.append(self.y)

    def walk(self, observations: FloatArray, most: int) -> bool:
        """Absorb ``observations`` (n, F) one after the other where only the end counts: of the outputs the last is
        kept, of the context `most` rows at least. False if a prediction on the way was no number."""
        if len(observations) == 0:
            return True
        self.y, self.batch, finite = walk(self.engine, observations, self.batch)
        self.behind += len(observations)
        if len(observations) >= most:
            self.base = self.base[:0]
            self.rows.clear()
        self.rows.extend(observations[-most:])
        self.outputs = [self.y]
        return finite

    def restart(self, reason: str) -> None:
        """Go back to the fresh state; the context begins anew."""
        self.batch, self.y, self.behind = self.spec.initial_state[None], None, 0
        self.base = self.base[:0]
        self.rows.clear()
        self.status, self.filled = "restarted", 0
        if self.last_seen is None:  # that the client had expired says more
            self.reason = reason

    def fill(self, missing: int) -> None:
        """Step over `missing` steps on the model's own predictions; each leaves a NaN row in the context."""
        blank = np.full(len(self.spec.features), np.nan, np.float32)
        for _ in range(missing):
            if self.y is None:  # nothing was predicted yet, so there is nothing to fill with
                return
            out, self.batch = self.engine.step(fed_back(self.spec, self.y), self.batch)
            self.y = out[0]
            self.rows.append(blank)
            self.filled += 1

    def bridge(self, missing: int, policy: GapPolicy) -> None:
        """Deal with a gap before the next observation."""
        if policy == "fill":
            self.fill(missing)
        else:
            self.restart("gap")

    def last_row(self) -> FloatArray:
        """The newest row of the context, (F,)."""
        newest: FloatArray = self.rows[-1] if self.rows else self.base[-1]
        return newest

    def context(self, most: int) -> FloatArray:
        """The last `most` rows, (c, F) float32."""
        recent = self.rows[-most:]
        return np.concatenate((self.base, np.asarray(recent, np.float32)))[-most:]

    def predictions(self) -> FloatArray:
        """The prediction after each observation, (n, K, W) float32."""
        return self.outputs[0][None] if len(self.outputs) == 1 else np.asarray(self.outputs, np.float32)

    def told(self) -> Told | None:
        """The prediction standing, as the client is told it."""
        return None if self.y is None else Told(self.y[:, 0], self._interval(self.y))

    def interval(self) -> FloatArray | None:
        """The interval around each prediction, (n, K, 2) float32, as the client is told it; None without one."""
        last = None if self.y is None else self._interval(self.y)
        if last is None:
            return None
        return np.array((*self.intervals, last), np.float32) if self.intervals else last[None]

    def _interval(self, y: FloatArray) -> FloatArray | None:
        own = bounds(self.spec, y)
        return own if own is None or not self.stretch else stretched(self.spec, y, own, self.stretch)

    def mark(self, live: LiveErrors, told: Told, x: FloatArray, *, first: bool) -> LiveErrors:
        """Hold the observation ``x`` (F,) against what was told of it; the live errors after it."""
        seen, before = x.tolist(), self.last_row().tolist()
        after, marks, stretch, anomaly = score(live, self.spec, *told.plain(), seen, before, self.stretch)
        if first and anomaly is not None:
            self.anomaly = np.array(anomaly, np.float32)
        if told.own:
            self.marks = marks if self.marks is None else [a + b for a, b in zip(self.marks, marks, strict=True)]
            self.stretch = stretch
        return after

    def is_finite(self) -> bool:
        """Whether the state and every prediction are numbers."""
        # summed in float64, where no float32 overflows: not a number, or infinite, shows in the sum
        state, predictions = self.batch.sum(dtype=np.float64), self.predictions().sum(dtype=np.float64)
        return math.isfinite(state) and math.isfinite(predictions)

    def check_finite(self) -> None:
        """InvalidInput not_finite if the observations drove the state or a prediction out of float32's range."""
        if not self.is_finite():
            _refuse_range()


def fresh(spec: ModelSpec, engine: Engine, status: Status, reason: str | None = None) -> Progress:
    """The state before any observation."""
    nothing = np.empty((0, len(spec.features)), np.float32)
    return Progress(spec, engine, spec.initial_state[None], None, nothing, 0, status, reason)


def rebuild(spec: ModelSpec, engine: Engine, context: FloatArray, reason: str) -> Progress:
    """The state these weights make of ``context`` (c, F); NaN rows (missing steps) are filled anew.

    Rows before the first observation are dropped: there is nothing to fill them with. Where the rows drive these
    weights out of float32's range, the state is the fresh one, `restarted`.
    """
    progress = fresh(spec, engine, "rebuilt", reason)
    finite, at = True, 0
    for blank in np.flatnonzero(np.isnan(context[:, 0])).tolist():
        finite = progress.walk(context[at:blank], len(context)) and finite
        progress.fill(1)
        at = blank + 1
    finite = progress.walk(context[at:], len(context)) and finite
    if not (finite and progress.is_finite()):  # these weights can't follow the client's past
        return fresh(spec, engine, "restarted", reason)
    progress.filled = 0
    progress.outputs.clear()
    return progress


def absorb_history(progress: Progress, observations: FloatArray, plan: list[Gap], most: int) -> None:
    """Step ``observations`` (n, F), bridging `plan[i]` before the i-th; only the end counts, and nothing is scored.

    The same state as `absorb` makes. Of the outputs the last is kept, of the context at least the last `most` rows.
    InvalidInput not_finite as there.
    """
    finite, at = True, 0
    for i, gap in enumerate(plan):
        if gap is not None:
            finite = progress.walk(observations[at:i], most) and finite
            progress.bridge(*gap)
            at = i
    finite = progress.walk(observations[at:], most) and finite
    if not (finite and progress.is_finite()):
        _refuse_range()


def absorb(
    progress: Progress,
    observations: FloatArray,
    plan: list[Gap],
    live: LiveErrors | None,
    told: Told | None,
) -> tuple[LiveErrors | None, Told | None]:
    """Step ``observations`` (n, F), bridging `plan[i]` before the i-th; score each against the prediction before it.

    `told` is what the client was told of the first of them, None if nothing. Nothing is scored after a gap, nor with
    `live` None (priming: no prediction was given). Returns the live errors and what the first observation was scored
    against, None if it was not.
    """
    scored_first = None
    for i, gap in enumerate(plan):
        x = observations[i]
        if gap is not None:
            progress.bridge(*gap)
        elif live is not None and told is not None:
            scored_first = told if i == 0 else scored_first
            live = progress.mark(live, told, x, first=i == 0)
        progress.step(x[None])
        if live is not None and i + 1 < len(plan):
            told = progress.told()
            if told is not None and told.interval is not None:
                progress.intervals.append(told.interval)
    progress.check_finite()
    return live, scored_first


def _refuse_range() -> NoReturn:
    detail = "the values drive the model's state or prediction out of float32's range"
    raise InvalidInput("observations", detail, code="not_finite")
