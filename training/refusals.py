"""Why a model was not exported or not published, said so that its author can act on it."""

from __future__ import annotations

import re


class TrainingError(Exception):
    """Base of what training tells a user without a traceback: the message says what to do."""


class ExportRefused(TrainingError):
    """The model can't be stepped, or was proved to step wrongly. `layer` names the culprit, "" if none is known."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"layer {layer!r}: {reason}" if layer else reason)
        self.layer = layer
        self.reason = reason


def brief(exc: BaseException) -> str:
    """The first line of an error that says something, at most 200 characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(exc))  # Keras writes its errors in bold
    lines = (line.strip() for line in plain.splitlines())
    return next((line for line in lines if line and not line.startswith("Exception encountered")), repr(exc))[:200]


class NotPublished(TrainingError):
    """A trained bundle was evaluated and held back; the report in `report` says more."""

    def __init__(self, reasons: list[str], report: str) -> None:
        super().__init__("not published: " + "; ".join(reasons) + (f". See {report}" if report else ""))
        self.reasons = reasons
        self.report = report
