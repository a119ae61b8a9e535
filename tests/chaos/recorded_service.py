"""`python -m service` whose SQLite writes a journal: python -m tests.chaos.recorded_service, CHAOS_JOURNAL=FILE.

Checkpoints come ten times as often and logs are cut at 300 kB instead of 64 MB, so that seconds are enough for all that
otherwise takes hours: logs moved, begun anew, cut. CHAOS_SYNCHRONOUS=OFF makes a store that lies about power cuts.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from service.__main__ import main
from service.stores import sqlite
from service.stores.sqlite_checkpoint import Checkpointer
from tests.chaos.journal import Journal, watch

if __name__ == "__main__":
    watch(Journal(Path(os.environ["CHAOS_JOURNAL"])))
    vars(sqlite)["Checkpointer"] = partial(Checkpointer, every_s=0.05, max_log_bytes=300_000)
    if "CHAOS_SYNCHRONOUS" in os.environ:
        vars(sqlite)["SYNCHRONOUS"] = dict.fromkeys(sqlite.SYNCHRONOUS, os.environ["CHAOS_SYNCHRONOUS"])
    main(prog_name="python -m service")
