"""The one JSON object by which a run of `retrain` tells a scheduler how it ended, however it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.decision import EXIT_CODES, Ended, Outcome
from training.interruption import INTERRUPTION


@contextmanager
def summed_up(job: str, wanted: bool) -> Iterator[Callable[[Ended], None]]:
    """The block says how it ended; if `wanted`, that is printed on stdout, and so is an error or a stop before."""
    try:
        yield lambda ended: _print({"job": job, **ended.facts}, wanted)
    except BaseException as exc:
        stopped = INTERRUPTION.stops or isinstance(exc, KeyboardInterrupt)
        outcome: Outcome = "interrupted" if stopped else "error"
        text = "nothing was published" if stopped else str(exc)
        _print({"job": job, "outcome": outcome, "exit": EXIT_CODES[outcome], "text": text}, wanted)
        raise


def _print(facts: dict[str, object], wanted: bool) -> None:
    if wanted:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
