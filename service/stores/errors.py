"""Why a store does not open: a mistake in the settings or the folder that no waiting repairs."""

from __future__ import annotations

from service.core.errors import RecurveError


class StoreNotOpened(RecurveError):
    """The store's URL or what it points to can't be used; the detail says what to change. Raised at open only."""

    code = "store_not_opened"
