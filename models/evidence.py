"""evidence/<version>.json: what live traffic said of a version while it ran in the shadow of the one that was served.

It lies beside the versions and not in them: a bundle stays as it was published.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.disk import fsync, replace_durably

EVIDENCE = "evidence"
FORMAT = 1


def write_evidence(model: Path, version: int, evidence: dict[str, Any]) -> None:
    """Replaces what is kept of the version, durably; a reader sees the old or the new. Call it under the model's lock.

    `evidence` is plain JSON, its numbers finite (ValueError otherwise); the format's number is added.
    """
    content = json.dumps({"format": FORMAT, **evidence}, allow_nan=False).encode() + b"\n"
    folder = model / EVIDENCE
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        fsync(model)
    replace_durably(folder / f"{version}.json", content)


def read_evidence(model: Path, version: int) -> dict[str, Any] | None:
    """What is kept of the version in this folder; None if nothing is, or nothing that reads."""
    try:
        evidence = json.loads((model / EVIDENCE / f"{version}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return evidence if isinstance(evidence, dict) and evidence.get("format") == FORMAT else None
