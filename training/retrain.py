"""Training a job again on what is there now, and publishing what beats the version that is served."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from models.disk import try_lock
from models.labels import STABLE
from models.manifest import Manifest
from models.repository import Repository
from training.champion import Champion, champion_of, count_new, known_until, warm_network
from training.contest import Contest, contest
from training.decision import Decision, Ended, decide
from training.evaluate import Evaluation
from training.intake import Gathered, gather
from training.interruption import INTERRUPTION
from training.job import Job
from training.pipeline import contract_of, exported, judged, keep_report
from training.quiet import import_frameworks
from training.refusals import TrainingError
from training.report import Curve
from training.retention import clear_old, finish_publishing
from training.sources import Series, newest_of
from training.stages import Stages, print_scores
from training.stepping import open_stepper
from training.windows import TooShort, demand_residuals, split

LOCK = ".retrain.lock"
CANDIDATE = "candidate"


def retrain(job: Job, repository: Repository, console: Console, *, cache: Path | None, quick: bool = False) -> Ended:
    """Gather, train a candidate, compare it with the champion, publish or reject it, clear old versions away.

    `cache`: the folder in which `gather` keeps what was read. One run per model at a time: another's is told at once,
    a dead process holds nothing. Stopped or killed at any moment, no version appears in part, and none without its
    label that the next run does not give it. SourceInvalid, TooShort, ExportRefused, Diverged and the repository's
    errors pass as they are.
    """
    began = time.monotonic()
    with only_run(repository, job.name) as alone:
        if not alone:
            ended = Ended("locked", f"another run of {job.name} is under way", {})
        else:
            ended = _Run(job, repository, Stages(console), quick).run(cache)
    about = {"model": job.name, "outcome": ended.outcome, "exit": ended.exit_code, "text": ended.text}
    return dataclasses.replace(ended, facts={**about, **ended.facts, "seconds": round(time.monotonic() - began, 1)})


@contextmanager
def only_run(repository: Repository, name: str) -> Iterator[bool]:
    """Whether this is the only run of the model; if so, it stays so within the block."""
    model = repository.root / name
    model.mkdir(parents=True, exist_ok=True)
    held = try_lock(model / LOCK, create=True)
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


def last_word(
    repository: Repository, name: str, champion: Champion | None, label: str, *, replace: bool
) -> Callable[[], None]:
    """What is asked under the repository's lock, right before what has beaten `champion` appears under `label`.

    TrainingError if another version is stable by now, or if a candidate that somebody put on trial meanwhile would be
    pushed aside (unless `replace`); KeyboardInterrupt if a stop was asked for.
    """

    def asked() -> None:
        now = repository.labels(name).labels
        if label == CANDIDATE and not replace and now.get(CANDIDATE) not in (None, now.get(STABLE)):
            raise TrainingError(f"{name}: version {now[CANDIDATE]} is on trial by now; run it again when that is over")
        if now.get(STABLE) != (None if champion is None else champion.version):
            raise TrainingError(f"{name}: the stable version changed while this ran; run it again to beat that one")
        INTERRUPTION.publishing()

    return asked


class _Run:
    """One run: what it has found out so far is in `facts`."""

    def __init__(self, job: Job, repository: Repository, stages: Stages, quick: bool) -> None:
        self._job = (job.quickened() if quick else job).repeated()
        self._settings = job.retrain
        self._repository, self._stages, self._quick = repository, stages, quick
        self.facts: dict[str, Any] = {}

    def run(self, cache: Path | None) -> Ended:
        job, stages = self._job, self._stages
        with stages.bars:
            if (number := finish_publishing(self._repository, job.name)) is not None:
                stages.say(
                    f"Version {number} had been published without its label when a run was killed; it has it now."
                )
            if (trial := self._on_trial()) is not None:
                return self._ended("nothing_new", f"version {trial} is still on trial as {CANDIDATE}")
            with stages.stage("load", bar=False):
                self._repository.refuse_other_contract(job.name, contract_of(job))
                champion = champion_of(self._repository, job.name)
                gathered = gather(job, cache)
                new = self._count(gathered)
                if new < self._settings.minimum_new:
                    return self._ended(
                        "nothing_new", f"{new} new observations, {self._settings.minimum_new} are wanted for a run"
                    )
                series = self._windowed(gathered.series)
            self.facts["champion"] = None if champion is None else champion.version
            decision, evaluation, report = self._train(series, champion)
        print_scores(stages.console, evaluation)
        if decision.label is None:
            return self._ended("rejected", decision.text, reasons=list(decision.reasons), report=report)
        deleted = clear_old(self._repository, job.name, self._settings.keep, self.facts["champion"])
        return self._ended("published", decision.text, label=decision.label, report=report, deleted=deleted)

    def _train(self, series: Sequence[Series], champion: Champion | None) -> tuple[Decision, Evaluation, str]:
        stages, repository, name = self._stages, self._repository, self._job.name
        with stages.stage("start TensorFlow", bar=False):
            import_frameworks()
            from training.fit import fit
        network = self._start(series, champion)
        with stages.timed("fit"):
            fitted = fit(self._job, series, progress=stages.bars, network=network)
        made: list[Decision] = []

        def compared(found: Evaluation) -> Evaluation:
            against = None if champion is None else self._contest(found, champion)
            made.append(decide(self._settings, found.reasons, against))
            return _noted(found, against, made[0], repository.labels(name).generation)

        with repository.stage(name) as staging:
            manifest: Manifest = exported(stages, staging, fitted, series)
            curve = Curve(fitted.history, fitted.best)
            manifest, evaluation = judged(
                stages, staging, manifest, fitted.job, series, curve, quick=self._quick, then=compared
            )
            self.facts["contest"] = evaluation.scores.get("contest")
            if made[0].label is None:
                return made[0], evaluation, str(keep_report(repository, staging, name))
            with stages.stage("publish", bar=False):
                word = last_word(repository, name, champion, made[0].label, replace=self._settings.replace)
                version = repository.publish(staging, manifest, made[0].label, last_word=word)
        self.facts["version"] = version
        return made[0], evaluation, str(repository.bundle(name, version) / "report" / "report.html")

    def _start(self, series: Sequence[Series], champion: Champion | None) -> Any:
        """The network to train on, or None for a new one."""
        network, why = None, "there is no champion yet"
        if self._settings.start == "scratch":
            why = "the job says so"
        elif champion is not None:
            until = newest_of(split(series, self._job).validation)
            network, why = warm_network(champion, self._job, until)
        if network is not None and champion is not None:
            self._stages.say(f"From the weights of version {champion.version}.")
        else:
            self._stages.say(f"From scratch: {why}.")
        self.facts["start"] = "scratch" if network is None else "warm"
        return network

    def _contest(self, found: Evaluation, champion: Champion) -> Contest:
        with self._stages.stage("compare", bar=False):
            return contest(self._job, found.tracks, champion.version, champion.manifest, open_stepper(champion.folder))

    def _on_trial(self) -> int | None:
        """The candidate that this run's would push aside, if it must not."""
        labels = self._repository.labels(self._job.name).labels
        trial = labels.get(CANDIDATE)
        waits = self._settings.publish == CANDIDATE and not self._settings.replace
        return trial if waits and trial != labels.get(STABLE) else None

    def _count(self, gathered: Gathered) -> int:
        """How many observations are newer than what was trained on last, published or not."""
        new = count_new(gathered.series, known_until(self._repository, self._job.name))
        self.facts["rows"] = {
            "all": sum(map(len, gathered.series)),
            "new": new,
            "late": gathered.late_rows,
            "duplicates": gathered.duplicates,
            "gaps": gathered.gaps,
        }
        return new

    def _windowed(self, series: Sequence[Series]) -> list[Series]:
        """What is trained and judged on: the window of each series that is long enough to be split."""
        length = self._settings.length
        longest = None if length is None else length + self._settings.holdout
        cut = [each if longest is None else each.part(max(0, len(each) - longest), len(each)) for each in series]
        fitting = [each for each in cut if _splits(each, self._job)]
        if not fitting:
            most = max(map(len, cut))
            raise TooShort(
                f"no series is long enough: of {most} observations retrain.holdout takes {self._settings.holdout}, and "
                "the rest is too little to learn from; lower it, or wait for more"
            )
        demand_residuals(split(fitting, self._job), self._job.ahead)
        if len(fitting) < len(cut):
            self._stages.say(f"{len(cut) - len(fitting)} of {len(cut)} series are too short yet and left out.")
        self.facts["rows"] |= {"used": sum(map(len, fitting)), "series": len(fitting)}
        return fitting

    def _ended(self, outcome: Any, text: str, **facts: Any) -> Ended:
        return Ended(outcome, text, {**self.facts, **facts})


def _splits(series: Series, job: Job) -> bool:
    try:
        split([series], job)
    except TooShort:
        return False
    return True


def _noted(found: Evaluation, against: Contest | None, decision: Decision, generation: int) -> Evaluation:
    """`found` with the contest and the decision among its scores, for the manifest and the report."""
    noted = {"label": decision.label, "reasons": list(decision.reasons), "generation": generation}
    scores = {**found.scores, "decision": noted}
    if against is not None:
        scores["contest"] = against.as_json()
    return dataclasses.replace(found, scores=scores)
