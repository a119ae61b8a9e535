"""How long things are kept: clients that idle, what is left of them, and records that could not be read."""

from __future__ import annotations

from service.core.types import ModelSpec

WEEK_S = 7 * 86400.0
MONTH_S = 30 * 86400.0


def idle_ttl_s(setting_s: float | None, spec: ModelSpec) -> float:
    """Seconds of silence after which a client of the model expires: the setting, or max(7 days, 30 intervals)."""
    return setting_s if setting_s is not None else max(WEEK_S, 30 * (spec.interval_s or 0.0))


def burial_margin_s(ttl_s: float) -> float:
    """Seconds beyond the time to live before an expired client is swept: another machine's clock may be behind ours."""
    return min(60.0, ttl_s / 10)
