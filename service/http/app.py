"""The application factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask

from service.core.requests import Answer
from service.http import errors, hooks
from service.http.around import Around, Observer
from service.http.context import Collaborators
from service.http.lane import Lane
from service.http.routes import bulk, clients, description, labels, models, operations, predict


class App(Flask):
    """A Flask whose views and hooks are plain functions, which it need not find out anew for each request."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """`func` itself."""
        return func


def unobserved(route: str, method: str, status: int, seconds: float, answer: Answer | None) -> None:
    """Counts nothing."""


def create_app(
    deps: Collaborators,
    observe: Observer = unobserved,
    *,
    access_log: bool = False,
    slow_request_s: float = 1.0,
) -> Flask:
    """The HTTP face of `deps`. `observe` is told of every request when it ends."""
    app = App("recurve", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False  # an empty name is not found, rather than redirected to another path
    around = Around(observe, access_log=access_log, slow_request_s=slow_request_s)
    hooks.register(app, around)
    errors.register(app)
    for routes in (predict, bulk, clients, models, labels, operations):
        app.register_blueprint(routes.blueprint(deps))
    app.register_blueprint(description.blueprint())
    app.wsgi_app = Lane(app.wsgi_app, predict.endpoint(deps), around)  # type: ignore[method-assign]
    return app
