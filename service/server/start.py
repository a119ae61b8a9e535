"""gunicorn in this very process: how it is started, and what its logger leaves to us."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.glogging import Logger

CONF = Path(__file__).parent.parent / "gunicorn.conf.py"


class Server(WSGIApplication):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn under gunicorn.conf.py. GUNICORN_CMD_ARGS counts, the command line does not."""

    def load_config(self) -> None:
        """At the start, and again at SIGHUP."""
        ours, sys.argv = sys.argv, ["gunicorn", "-c", f"file:{CONF}"]
        try:
            super().load_config()
        finally:
            sys.argv = ours


def serve() -> None:
    """Serve as the environment says until a signal ends it; does not return."""
    server = Server()
    sys.argv = ["-m", "service"]  # how gunicorn starts its successor at SIGUSR2, all settings being in the environment
    server.run()


class ErrorLogger(Logger):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn's logger without an access log: `http.hooks` writes that, with request ids, and only if it is asked to.

    gunicorn would format a line for every request as soon as its logging is configured at all.
    """

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing."""
