"""What the scores mean: whether a model has skill at all, and whether it reached what its job demands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.job import Job
from training.metrics import shown

MIN_SKILL = 0.005
MAX_P = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the model beats the last value, in words."""

    skill: bool
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """One demand on the model, what was found, and whether it was met."""

    text: str
    passed: bool


def judge(job: Job, scores: Mapping[str, Any]) -> tuple[Verdict, tuple[Check, ...]]:
    """The verdict over the last value, on the job's first target, and every gate of the job.

    Skill needs an error at least 0.5 % smaller and a loss difference that chance gives less than once in a hundred
    (Diebold & Mariano 1995, one-sided): a lucky edge on a random walk passes neither for long.
    """
    verdict = _verdict(job, scores)
    checks = [] if not job.gates.skill else [Check(verdict.text, verdict.skill)]
    level = scores["level"]
    for name, wanted in job.gates.rmse.items():
        found = scores["targets"][name]["one_step"]["model"]["rmse"]
        unit = scores["targets"][name]["unit"]
        checks.append(_check(f"RMSE of {name} {found:.3f} {unit}", f"at most {wanted:g}", found <= wanted))
    if job.gates.coverage is not None:
        low, high = job.gates.coverage
        name = job.targets[0].name
        found = scores["targets"][name]["coverage"]
        text = f"{level:.0%} interval of {name} holds {found:.1%}"
        checks.append(_check(text, f"{low:.0%} to {high:.0%}", low <= found <= high))
    if job.gates.qlike_ratio is not None:
        for name in (target.name for target in job.targets if target.loss == "qlike"):
            for key, series in scores["targets"][name]["series"].items():
                checks.append(_against_log_har(f"QLIKE of {name} for {key}", series["one_step"], job.gates.qlike_ratio))
    return verdict, tuple(checks)


def _against_log_har(what: str, measured: Mapping[str, Any], highest: float) -> Check:
    """A baseline that could not be fitted leaves a demand unmet: what is demanded never goes unjudged."""
    wanted, model = f"at most {highest:g}", measured["model"]["qlike"]
    if "log_har" not in measured:
        return _check(f"{what} {model:.3f}, and too little data to fit a log-HAR beside it", wanted, False)
    reference = measured["log_har"]["qlike"]
    ratio = model / reference if reference > 0 else (math.inf if model > 0 else 1.0)
    return _check(f"{what} {model:.3f}, {ratio:.3f} of log-HAR's", wanted, ratio <= highest)


def _check(found: str, wanted: str, passed: bool) -> Check:
    return Check(f"{found} ({wanted} wanted)", bool(passed))


def _verdict(job: Job, scores: Mapping[str, Any]) -> Verdict:
    name = job.targets[0].name
    target = scores["targets"][name]
    loss, unit = target["loss"], target["unit"] if target["loss"] == "rmse" else ""
    model, naive = target["one_step"]["model"][loss], target["one_step"]["last_value"][loss]
    skill = target["skill"].get("last_value", 0.0)
    figures = f"{loss.upper()} {shown(model)} against {shown(naive)} {unit}".rstrip()
    if skill >= MIN_SKILL and target["p"] < MAX_P:
        return Verdict(True, f"{name}: {skill:.1%} better than the last value ({figures})")
    how = f"{abs(skill):.2%} {'better' if skill > 0 else 'worse'}, p = {target['p']:.2g}"
    return Verdict(False, f"{name}: no skill over the last value ({figures}; {how})")
