"""Log lines as JSON, one object a line on standard error, each with the id of the request it belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

_SERVERS = ("gunicorn.error", "gunicorn.access", "_granian")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonLines(OrjsonFormatter):
    """Writes time (ISO 8601, UTC), level, logger, pid, message, request_id where there is one, and all extras."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "process", "message"],
            rename_fields={"levelname": "level", "name": "logger", "process": "pid"},
            timestamp="time",
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Adds the request's id; a record is formatted in the thread that logged it."""
        super().add_fields(log_data, record, message_dict)
        current = request_id.get()
        if current is not None:
            log_data["request_id"] = current


def log_config(level: str) -> dict[str, Any]:
    """A `logging.config.dictConfig` for the whole process, the servers' loggers included."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": level.upper(), "handlers": ["lines"]},
        "loggers": {name: {"handlers": [], "propagate": True} for name in _SERVERS},
    }
