"""Small bundles to publish: the repository never looks at what the files mean."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.manifest import Feature, Manifest, Target


def sample_manifest(name: str = "sensor", **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": name,
        "fingerprint": "a" * 64,
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "features": (Feature(name="temperature", unit="degC"),),
        "targets": (Target(name="temperature", unit="degC", scale=3.0),),
        "interval_s": 3600.0,
        "initial_state": (0.0, 1.0),
        "architecture": "lstm",
        "context_length": 48,
    }
    return Manifest(**{**fields, **changes})


def write_sample(folder: Path, mark: bytes = b"graph") -> None:
    (folder / "saved_model.pb").write_bytes(mark)
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    (folder / "assets").mkdir()


def publish_sample(repository: Any, name: str = "sensor", label: str | None = "stable", **changes: Any) -> int:
    with repository.stage(name) as staging:
        write_sample(staging)
        return int(repository.publish(staging, sample_manifest(name, **changes), label))
