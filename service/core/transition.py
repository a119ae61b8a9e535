"""From a client's record to its next one: pure, so that a lost race is simply computed again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from service.core import gaps, order, shadow
from service.core.absorb import Gap, Progress, absorb, absorb_history, fresh, rebuild
from service.core.errors import OrderConflict
from service.core.lookahead import bounds
from service.core.patience import give_way
from service.core.record import LastAnswer, LiveErrors, Record, Track
from service.core.registry import STABLE, Served
from service.core.requests import Paired, PredictRequest
from service.core.scoring import Told, no_errors
from service.core.shadow import PROMOTED, Shadow
from service.core.types import FloatArray, ModelSpec


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request makes of a record, not saved yet. `scored`: what its first observation was marked on.

    ``interval`` (n, K, 2) or None: around each prediction, as the client is told it. `paired`: how its candidate
    compared.
    """

    record: Record
    progress: Progress
    scored: Told | None
    interval: FloatArray | None
    paired: Paired | None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a transition needs beside the record: the request, its digest, who serves it, when, under which bounds.

    `context_rows`: how many observations the record's context holds. `adaptive`: whether intervals follow the client's
    own errors. `candidate`: what shadows the client.
    """

    request: PredictRequest
    digest: bytes
    served: Served
    generation: int
    now: float
    max_gap: int
    context_rows: int
    adaptive: bool = False
    candidate: Served | None = None

    def plan(self, last_time: float, first: int, *, bridged: bool = False) -> list[Gap]:
        """For each observation the gap before it, None for none; `bridged`: the first one's is dealt with.

        WouldWait if to fill them takes longer than a thread in a hurry has time for.
        """
        spec, request = self.served.spec, self.request
        missing = gaps.missing_steps(spec, request.times, len(request.observations), last_time, first)
        if bridged:
            missing[0] = 0
        plan: list[Gap] = [
            (m, gaps.effective_policy(spec, request.gap, m, self.max_gap, first)) if m else None for m in missing
        ]
        fills = gaps.check_fills(plan, self.max_gap)
        if fills:
            give_way((len(plan) + fills) * (1 if self.candidate is None else 2))
        return plan

    def shadow(self, plan: list[Gap], progress: Progress, told: Told | None, record: Record | None) -> Shadow | None:
        """What the candidate makes of the observations that `progress` absorbed; None without one. As `follow` says."""
        if self.candidate is None:
            return None
        points = shadow.told_before(progress, plan, told)
        observations, adaptive = self.request.observations, self.adaptive
        return shadow.follow(self.candidate, self.served.spec, observations, plan, points, record, adaptive=adaptive)

    def unstretched(self) -> tuple[float, ...] | None:
        """How wide the intervals of a state are that was never scored: as its weights say; None where they stay so."""
        return (0.0,) * len(self.served.spec.targets) if self.adaptive else None


def begin(turn: Turn, reason: str | None) -> Outcome:
    """The first observations of a client, or with `reason` of one whose record is lost; the number then goes on."""
    spec, step = turn.served.spec, turn.request.step
    if reason is None and step not in (None, 1):
        detail = f"step {step} is ahead: nothing is kept for this client, its first step is 1"
        raise OrderConflict("step_conflict", detail, 1)
    first = 1 if step is None else step
    progress = fresh(spec, turn.served.engine, "started" if reason is None else "restarted", reason)
    progress.stretch = turn.unstretched()
    plan = turn.plan(math.nan, first)
    live, _ = absorb(progress, turn.request.observations, plan, no_errors(len(spec.targets)), None)
    return _pack(turn, progress, None, first, live, None, turn.shadow(plan, progress, None, None))


def prime(turn: Turn, label: str = STABLE) -> Outcome:
    """A client anew from its history: nothing is scored, no request remembered, only the last prediction kept."""
    spec, observations = turn.served.spec, turn.request.observations
    first = 1 if turn.request.step is None else turn.request.step
    progress, plan = fresh(spec, turn.served.engine, "started"), turn.plan(math.nan, first)
    absorb_history(progress, observations, plan, turn.context_rows)
    beside = None
    if turn.candidate is not None:
        beside = shadow.follow(turn.candidate, spec, observations, plan, None, None, adaptive=turn.adaptive)
    outcome = _pack(turn, progress, None, first, None, None, beside)
    outcome.record.ring, outcome.record.last, outcome.record.label = b"", None, label
    return outcome


def go_on(turn: Turn, record: Record, *, expired: bool, fell_back: bool) -> Outcome:
    """The next observations of a known client; of an `expired` one nothing but its place and its label is used."""
    spec, engine = turn.served.spec, turn.served.engine
    first = record.step + 1
    plan = turn.plan(record.last_time, first, bridged=expired)
    told: Told | None = None
    here = None if expired else shadow.kept(record, spec)
    if expired:
        progress = fresh(spec, engine, "restarted", "expired")
        progress.last_seen = record.touched
    elif here is None:
        progress = rebuild(spec, engine, record.context, rebuild_reason(fell_back))
        told = _told(spec, record) if progress.status == "rebuilt" else None
    else:
        track, behind, second = here
        progress = Progress(spec, engine, track.state[None], track.y, record.context, behind, "carried")
        progress.reason = PROMOTED if second else None
        told = _told(spec, record)
    progress.stretch = turn.unstretched()
    if turn.adaptive and here is not None:
        progress.stretch = here.track.stretch or progress.stretch
    live, scored = absorb(progress, turn.request.observations, plan, record.live, told)
    own = told if told is not None and told.own else None
    beside = turn.shadow(plan, progress, own, None if expired else record)
    return _pack(turn, progress, record, first, live, scored, beside)


def give_way_to_rebuild(turn: Turn, record: Record) -> None:
    """Said before `go_on`: WouldWait if it would replay more than a thread in a hurry has time for."""
    if shadow.kept(record, turn.served.spec) is None:
        give_way(len(record.context))
    if turn.candidate is not None and shadow.is_due(record, turn.candidate.spec):
        give_way()  # when a candidate appears, the turns of all its clients come at once


def rebuild_reason(fell_back: bool) -> str:
    """Why a state is rebuilt: the client's label is gone, or its model was updated."""
    return "label_gone" if fell_back else "model_updated"


def _pack(
    turn: Turn,
    progress: Progress,
    old: Record | None,
    first: int,
    live: LiveErrors | None,
    scored: Told | None,
    beside: Shadow | None,
) -> Outcome:
    spec: ModelSpec = turn.served.spec
    n = len(turn.request.observations)
    y, interval = progress.predictions(), progress.interval()
    last = LastAnswer(
        status=progress.status,
        reason=progress.reason,
        filled=progress.filled,
        behind=progress.behind,
        version=spec.version,
        last_seen=progress.last_seen or 0.0,
        predicted=np.full(len(spec.targets), np.nan, np.float32) if scored is None else scored.point,
        y=y,
        interval=interval,
        level=spec.level or 0.0,
        anomaly=progress.anomaly,
    )
    last_time = math.nan if old is None or progress.last_seen is not None else old.last_time
    record = Record(
        label=STABLE if old is None else old.label,
        generation=turn.generation if old is None else max(turn.generation, old.generation),
        step=first + n - 1,
        behind=progress.behind,
        last_time=gaps.advance(spec, last_time, turn.request.times, n, turn.now),
        created=turn.now if old is None else old.created,
        touched=turn.now,
        tracks=(
            Track(spec.fingerprint, progress.batch[0], y[-1], stretch=progress.stretch or ()),
            *(() if beside is None else (beside.track,)),
        ),
        context=progress.context(turn.context_rows),
        live=no_errors(len(spec.targets)) if live is None else live,
        ring=order.remember(
            b"" if old is None else old.ring, order.key_hash(turn.request), turn.digest, first, first + n - 1
        ),
        last=last,
    )
    return Outcome(record, progress, scored, interval, None if beside is None else beside.paired)


def _told(spec: ModelSpec, record: Record) -> Told:
    """What the client was last told; after a priming, which remembers no answer, what its track predicts."""
    own = record.tracks[0].fingerprint == spec.fingerprint
    if record.last is None:
        y = record.tracks[0].y
        return Told(y[:, 0], bounds(spec, y), own)
    last = record.last
    own = own and last.version == spec.version
    return Told(last.y[-1, :, 0], None if last.interval is None else last.interval[-1], own)
