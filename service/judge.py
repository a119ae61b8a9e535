"""The judge: a thread of each worker, of which one at a time looks at the candidates' trials.

A look reads the minutes that have closed, writes what they say beside the version, and gives the verdict its effect by
the administrator's way. Evidence comes first, then the label, both by compare-and-set: a judge killed in between, or
two at once, leave nothing that the next look does not set right.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from models.errors import RepositoryError
from models.labels import CANDIDATE, STABLE
from models.manifest import Manifest, read_manifest
from models.repository import Repository
from service.core import minutes
from service.core.errors import LabelsMoved, RecurveError, RepositoryReadOnly, StoreUnavailable
from service.core.lease import MARGIN_S, Lease
from service.core.ports import Clock, MovesLabels
from service.core.registry import Registry
from service.core.requests import Answer, PredictRequest
from service.core.trial import Trial, series_of, summary_of, trial_of, wealth
from service.core.types import ClientKey
from service.looking import Looking
from service.minutes import MinuteSums

logger = logging.getLogger("recurve.judge")

MOST_EARLIER = 10  # trials of one version that are remembered
HOUR_S = 3600.0


class ObservesTrials(Protocol):
    """Who is told how trials go."""

    def observe_trial(self, model: str, version: int, steps: int, better: float, worse: float) -> None:
        """A look at a trial: so many more steps, and the wealth of either bet."""
        ...

    def observe_outcome(self, model: str, outcome: str) -> None:
        """A trial has ended as `promoted`, `worse`, `undecided` or `left` (to a human); or it is `unwritable`."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How trials go whose job does not say otherwise. With `promote` off verdicts are kept and labels left alone."""

    promote: bool = True
    level: float = 0.05
    deadline_h: float = 168.0

    def of(self, job: Mapping[str, Any] | None) -> tuple[float, float]:
        """Level and deadline (hours) for a version made by `job`, whose table `retrain` may name them."""
        table = (job or {}).get("retrain")
        given = table if isinstance(table, Mapping) else {}
        level, hours = given.get("level"), given.get("deadline_hours")
        return (
            float(level) if isinstance(level, float) and 0 < level < 1 else self.level,
            float(hours) if isinstance(hours, int | float) and 0 < hours < 1e6 else self.deadline_h,
        )


class PairedSums:
    """A Witness that adds each request's paired differences to the minute's sums of its candidate."""

    def __init__(self, sums: MinuteSums) -> None:
        self._sums = sums

    def witness(self, key: ClientKey, request: PredictRequest, answer: Answer) -> None:
        """See Witness."""
        paired = answer.paired
        if paired is not None:
            self._sums.add(key.model, series_of(paired.fingerprint), (paired.steps, paired.sum))


class Judge(Looking):
    """Looks at the trials about every minute, unless another process does. Trouble with the store or the repository
    puts a look off; what is served goes on."""

    def __init__(
        self,
        registry: Registry,
        repository: Repository,
        labels: MovesLabels,
        sums: MinuteSums,
        lease: Lease,
        clock: Clock,
        observer: ObservesTrials,
        terms: Terms | None = None,
    ) -> None:
        super().__init__("recurve-judge", "a look at the trials failed", sums.minute_s)
        self._registry = registry
        self._repository = repository
        self._labels = labels
        self._sums = sums
        self._lease = lease
        self._clock = clock
        self._observer = observer
        self._terms = terms or Terms()
        self._told: dict[str, str] = {}  # by model, the trouble that was logged last

    def look(self) -> bool:
        """Look at every trial if that is due and nobody else is at it; True if all were looked at."""
        try:
            if not self._lease.take(0.9 * self._sums.minute_s):
                return False
        except StoreUnavailable:
            return False  # every request says so as well
        done = False
        try:
            try:
                done = all(self._lease.renew() and self._looked_at(name) for name in self._registry.models)
            finally:
                self._lease.give_back(done=done)
        except StoreUnavailable as error:
            logger.warning("a look at the trials was broken off", extra={"code": error.code, "why": error.detail})
        return done

    def _looked_at(self, name: str) -> bool:
        """False if it was stopped instead. Raises what the store raises."""
        if self._stopped.is_set():
            return False
        try:
            self._judge(name)
            self._told.pop(name, None)
        except LabelsMoved:
            pass  # since they were read: the next look reads them again
        except (RepositoryError, OSError, ValueError) as error:
            self._tell(name, str(error), unwritable=isinstance(error, OSError))
        except RecurveError as error:
            if isinstance(error, StoreUnavailable):
                raise
            self._tell(name, error.detail, unwritable=isinstance(error, RepositoryReadOnly))
        return True

    def _judge(self, name: str) -> None:
        labels = self._repository.labels(name)
        version, against = labels.labels.get(CANDIDATE), labels.labels.get(STABLE)
        if version is None or against is None or version == against:
            return
        kept = self._repository.evidence(name, version)
        candidate, served = (read_manifest(self._repository.bundle(name, number)) for number in (version, against))
        trial = trial_of(kept)
        if trial is None or self._is_over(trial, version, candidate, served, labels.generation):
            trial = self._begin(name, version, candidate, against, served, kept)
        if trial.verdict is None:
            before = trial.steps
            trial = trial.with_minutes(self._sums.closed(name, trial.series, after=trial.through))
            said = trial.standing()
            trial = trial.judged(said, self._clock(), labels.generation)
            if not self._repository.keep_evidence(name, version, trial.as_dict(said), instead_of=kept):
                return  # another judge was first
            steps = trial.steps - before
            self._observer.observe_trial(name, version, steps, wealth(said.better), wealth(said.worse))
            if trial.verdict is not None and not self._terms.promote:
                self._log("a candidate's trial has ended, its label is left to you", trial)
                self._observer.observe_outcome(name, "left")
        if trial.verdict is not None and self._terms.promote:
            self._carry_out(trial, labels.generation)

    def _is_over(self, trial: Trial, version: int, candidate: Manifest, served: Manifest, generation: int) -> bool:
        """Whether the trial that was kept is another one than that which the labels ask for now."""
        if not trial.is_of(version, candidate.fingerprint, served.fingerprint):
            return True
        if trial.through > self._clock() + MARGIN_S:  # a clock that was ahead began it, or looked at it
            return True
        if trial.generation in (None, generation):
            return False
        # labels that have moved since the verdict, and name the candidate again, ask for another trial; those that
        # have since the last look may: only where its time is up does it matter whether they took the candidate away
        return self._terms.promote if trial.verdict is not None else self._clock() >= trial.deadline

    def _begin(
        self,
        name: str,
        version: int,
        candidate: Manifest,
        against: int,
        served: Manifest,
        kept: Mapping[str, Any] | None,
    ) -> Trial:
        now, minute_s = self._clock(), self._sums.minute_s
        level, deadline_h = self._terms.of(candidate.job)
        former = [] if kept is None else kept.get("earlier")
        earlier = () if kept is None else (*(former if isinstance(former, list) else ()), summary_of(kept))
        trial = Trial(
            model=name,
            version=version,
            fingerprint=candidate.fingerprint,
            against=against,
            against_fingerprint=served.fingerprint,
            began=now,
            level=level,
            deadline=now + HOUR_S * deadline_h,
            minute_s=minute_s,
            through=minutes.start_of(now, minute_s),  # this minute may hold sums of an earlier trial
            earlier=earlier[-MOST_EARLIER:],
        )
        self._log("a candidate's trial begins", trial)
        return trial

    def _carry_out(self, trial: Trial, generation: int) -> None:
        if trial.verdict == "better":
            self._labels.move(trial.model, STABLE, trial.version, generation)
            self._log("a candidate was proven better and is served", trial)
        else:
            self._labels.drop(trial.model, CANDIDATE, generation)
            self._log("a candidate was dropped", trial)
        self._observer.observe_outcome(trial.model, "promoted" if trial.verdict == "better" else str(trial.verdict))

    def _log(self, event: str, trial: Trial) -> None:
        said = trial.standing()
        about = {
            "model": trial.model,
            "version": trial.version,
            "against": trial.against,
            "verdict": trial.verdict,
            "observations": len(said.mean),
            "steps": trial.steps,
            "mean_difference": round(float(said.mean[-1]), 6) if len(said.mean) else None,
            "wealth": round(wealth(said.better), 4),
            "level": trial.level,
        }
        logger.info(event, extra=about)

    def _tell(self, name: str, why: str, *, unwritable: bool) -> None:
        if unwritable:
            self._observer.observe_outcome(name, "unwritable")
        if self._told.get(name) != why:
            logger.error("a candidate can't be judged", extra={"model": name, "why": why})
        self._told[name] = why
