"""Put in front of a process's path, this stops it (SIGSTOP) at a moment that a test names, until it is told otherwise.

Python imports a module of this name when it starts. HOLD_AT is `EVENT NTH END`: the process stops right before what
raises Python's audit event EVENT (docs.python.org/3/library/audit_events.html) for the NTH time with an argument that
is text, or a path, with END at its end.
"""

import os
import signal
import sys
from pathlib import PurePath

_EVENT, _NTH, _END = os.environ["HOLD_AT"].split(" ", 2)
_left = int(_NTH)


def _look(event, arguments):
    global _left
    if event == _EVENT and any(isinstance(one, str | PurePath) and str(one).endswith(_END) for one in arguments):
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)


sys.addaudithook(_look)
