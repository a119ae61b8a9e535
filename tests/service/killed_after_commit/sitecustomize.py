"""Put in front of a service's path, this ends a worker (or all of it) after a commit and before the reply.

Python imports a module of this name when it starts. While the file named by KILL_AFTER_COMMIT exists, the next save of
a client's record is the last thing that happens: to its worker if the file says "worker", to the whole process group
if it says "service".
"""

import os
import signal
from pathlib import Path

from service.stores.sqlite import SqliteStore

_MARK = Path(os.environ["KILL_AFTER_COMMIT"])
_save = SqliteStore.save


def _save_and_die(self, key, old, new, blob):
    saved = _save(self, key, old, new, blob)
    if saved and not key.tenant.startswith("~") and _MARK.exists():
        whom = _MARK.read_text()
        _MARK.unlink()
        os.kill(os.getpid(), signal.SIGKILL) if whom == "worker" else os.killpg(0, signal.SIGKILL)
    return saved


SqliteStore.save = _save_and_die
