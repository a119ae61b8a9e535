"""What a server loads in each worker: `service.wsgi:application()`."""

from __future__ import annotations

from flask import Flask

from service.bootstrap import build
from service.core.newest import Newest
from service.settings import read_settings

newest: Newest | None = None  # what the workers of one master share; it makes it before it forks them


def application() -> Flask:
    """The service as its environment says, as a WSGI application."""
    return build(read_settings(), newest=newest).app
