"""What is done with a candidate: published, or rejected and why; and how a run of `retrain` ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.labels import STABLE
from training.contest import Contest
from training.tables import Retrain

LEVEL = 0.05  # of a job that says none
Outcome = Literal["published", "rejected", "nothing_new", "locked", "interrupted", "error"]
EXIT_CODES: dict[Outcome, int] = {
    "published": 0,
    "error": 1,
    "rejected": 3,
    "nothing_new": 4,
    "locked": 5,
    "interrupted": 130,
}
LEVEL = 0.05  # where a job names none; not in the job itself: the service could not tell it from one that is meant


@dataclass(frozen=True, slots=True)
class Decision:
    """`label` is what the candidate is published under; None: it is rejected, for the `reasons`."""

    label: str | None
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """The decision as a sentence without its full stop."""
        if self.label is None:
            return "rejected: " + "; ".join(self.reasons)
        return f"published as {self.label}: " + "; ".join(self.reasons)


def decide(settings: Retrain, missed: Sequence[str], contest: Contest | None) -> Decision:
    """Publish a candidate that misses no gate of its job and beats the champion; without a champion, as `stable`.

    `missed`: the gates it misses, in words.
    """
    reasons = list(missed)
    if contest is None:
        return Decision(None, tuple(reasons)) if reasons else Decision(STABLE, ("there is no champion yet",))
    level = LEVEL if settings.level is None else settings.level
    if not contest.paired.p < level:
        reasons.insert(0, f"{contest.text}, where p < {level:g} is wanted")
    if reasons:
        return Decision(None, tuple(reasons))
    return Decision(settings.publish, (contest.text,))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `facts` are what schedulers and people may want to know of it, ready for JSON."""

    outcome: Outcome
    text: str
    facts: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return EXIT_CODES[self.outcome]
