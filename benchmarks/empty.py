"""The reference of every figure: a Flask app with one JSON endpoint that does nothing."""

from __future__ import annotations

from flask import Flask


def create_app() -> Flask:
    """An app that answers GET / with a constant JSON object."""
    app = Flask(__name__)

    @app.get("/")
    def nothing() -> dict[str, bool]:
        return {"ok": True}

    return app
