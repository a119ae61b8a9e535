"""What figures were measured on and with."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Names, versions, and how busy it was before."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    packages = ("gunicorn", "flask", "pydantic", "ai-edge-litert", "numpy")
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.machine(),
        "cores": len(names),
        "load_before": float(Path("/proc/loadavg").read_text(encoding="utf-8").split()[0]),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def busy_s() -> float:
    """Seconds that all processors together have been busy since the machine started."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, _ = (int(field) for field in fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
