"""Commands that are asked to stop while Python runs a piece of source text, as it does whenever it makes a dataclass.

`python -m tests.stopped_in_text training` or `… service`: that command line with a command `probe` beside its others.
"""

from __future__ import annotations

import sys
from typing import Any

ASK = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


def training() -> None:
    """As `python -m training`."""
    from training.__main__ import main, run

    _add(main)
    run(["probe"])


def service() -> None:
    """As `python -m service state`."""
    from service.__main__ import main
    from service.state_commands import state

    _add(state)
    main(["state", "probe"])


def _add(group: Any) -> None:
    @group.command()
    def probe() -> None:
        exec(ASK)


if __name__ == "__main__":
    {"training": training, "service": service}[sys.argv[1]]()
