"""Cron expressions as people know them, as triggers of the scheduler's library."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from training.tables import Schedule

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def trigger_of(schedule: Schedule) -> CronTrigger:
    """When `schedule` is due. ValueError says what is wrong with its expression."""
    fields = schedule.cron.split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields, not 5: minute, hour, day of month, month, day of week")
    minute, hour, day, month, weekday = fields
    trigger = CronTrigger(
        minute=minute,
        hour=hour,
        day=day,
        month=month,
        day_of_week=weekdays(weekday),
        timezone=ZoneInfo(schedule.timezone),
        jitter=schedule.jitter_s or None,
    )
    if trigger.get_next_fire_time(None, datetime.now(UTC)) is None:
        raise ValueError("it never falls due")  # 30 February
    return trigger


def weekdays(field: str) -> str:
    """A cron field of days by name. The library counts from Monday, cron from Sunday, which is also 7."""
    if field == "*":
        return field
    found: set[int] = set()
    for part in field.lower().split(","):
        shaped = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", part)
        if shaped is None or (shaped[3] is not None and int(shaped[3]) == 0):
            raise ValueError(f"day of week: {part!r} is no day, range or step")
        first, last, step = shaped[1], shaped[2], int(shaped[3] or 1)
        if first == "*":
            start, stop = 0, 6
        else:
            start = _day(first)
            stop = _day(last) if last is not None else (6 if shaped[3] else start)
            if stop < start:  # fri-mon, and 5-7 as 5-0
                stop += 7
        found |= {each % 7 for each in range(start, stop + 1, step)}
    return ",".join(DAYS[each] for each in sorted(found))


def _day(name: str) -> int:
    if name in DAYS:
        return DAYS.index(name)
    if not name.isdecimal() or int(name) > 7:
        raise ValueError(f"day of week: {name!r} is none of 0 to 7 and {', '.join(DAYS)}")
    return int(name) % 7
