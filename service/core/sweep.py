"""A sweep: one walk through the whole store that buries who has expired and drops what was kept long enough.

Whatever it finds may have changed by the time it acts, so it deletes only what is as it was read. Requests decide for
themselves who has expired: a sweep saves room, and changes no answer's numbers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from service.core import minutes, quarantine, record, tombstones
from service.core.errors import RecordCorrupt
from service.core.lifetime import MONTH_S, burial_margin_s, idle_ttl_s
from service.core.ports import Clock, Entry, Scans, StateStore
from service.core.records import Records
from service.core.registry import Registry

SLICE = 100  # records at a time: the store serves requests in between
ACTIVE_S = 3600.0


@dataclass(slots=True)
class Swept:
    """What a sweep has come by so far, by model: clients that were buried, and those seen within the last hour."""

    buried: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)
    tombstones_dropped: int = 0
    quarantined_dropped: int = 0
    minutes_dropped: int = 0


class Sweep:
    """Goes through a store slice by slice. `tombstone_s`: how long a tombstone is kept; a quarantined record, 30 days.

    Left alone: clients of models that are not served here (how long those may idle is not known here), records that
    do not read (the client's next request sets them aside), and whatever else is not understood.
    """

    def __init__(
        self,
        registry: Registry,
        store: StateStore,
        scans: Scans,
        clock: Clock,
        *,
        idle_ttl_s: float | None = None,
        tombstone_s: float = MONTH_S,
    ) -> None:
        self._registry = registry
        self._store = store
        self._scans = scans
        self._records = Records(store, clock)
        self._clock = clock
        self._idle_ttl_s = idle_ttl_s
        self._tombstone_s = tombstone_s

    def slice(self, after: str | None, swept: Swept) -> str | None:
        """Sweep the records from the cursor `after` on and add to `swept`; the next cursor, None at the end.

        Raises what the store raises; what was done so far stays done.
        """
        scan = self._scans.scan(after, SLICE)
        now, expired_after = self._clock(), self._allowances()
        for model in expired_after:
            swept.active[model] += 0  # none is a count as well
        for entry in scan.entries:
            tenant = entry.key.tenant
            if tenant.startswith("~"):
                self._sweep_ours(entry, now, swept)
                continue
            allowed = expired_after.get(entry.key.model)
            if allowed is None:
                continue
            idle = now - record.touched_of(entry.blob)  # NaN, which is not more than anything, if it does not read
            if idle > allowed:
                self._sweep_client(entry, swept)
            elif idle <= ACTIVE_S:
                swept.active[entry.key.model] += 1
        return scan.cursor

    def _allowances(self) -> dict[str, float]:
        """For each model served, how long its clients may idle before they are swept."""
        allowances = {}
        for name, model in self._registry.models.items():
            for served in tuple(model.versions.values())[:1]:  # the interval is a model's, the same in all versions
                ttl_s = idle_ttl_s(self._idle_ttl_s, served.spec)
                allowances[name] = ttl_s + burial_margin_s(ttl_s)
        return allowances

    def _sweep_client(self, entry: Entry, swept: Swept) -> None:
        try:
            found = record.decode(entry.key, entry.blob)
        except RecordCorrupt:
            return
        if self._records.bury(entry.key, entry.nonce, found):
            swept.buried[entry.key.model] += 1

    def _sweep_ours(self, entry: Entry, now: float, swept: Swept) -> None:
        key, nonce, blob = entry
        try:
            if key.tenant.startswith(tombstones.BURIED):
                old = now - tombstones.decode(key, blob).buried > self._tombstone_s
                swept.tombstones_dropped += old and self._store.delete(key, nonce)
            elif key.tenant.startswith(quarantine.SET_ASIDE):
                old = now - quarantine.unwrap(key, blob)[0] > MONTH_S
                swept.quarantined_dropped += old and self._store.delete(key, nonce)
            elif key.tenant == minutes.TENANT:
                old = now - minutes.decode(key, blob).start > minutes.KEPT_S
                swept.minutes_dropped += old and self._store.delete(key, nonce)
        except RecordCorrupt:
            return
