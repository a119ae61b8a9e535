"""What a server loads in each worker: `service.wsgi:application()`."""

from __future__ import annotations

from flask import Flask

from service.bootstrap import build
from service.settings import read_settings


def application() -> Flask:
    """The service as its environment says, as a WSGI application."""
    return build(read_settings()).app
