"""What a Redis server should be told by its operator before it keeps records: said once, in the log."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError

from service.stores.redis_server import Server

logger = logging.getLogger(__name__)


def advise(server: Server) -> None:
    """Warns if the server may evict records, or may lose what it has acknowledged. One that won't tell is not asked."""
    for advice in _advice(_info(server, "memory"), _info(server, "persistence"), _appendfsync(server)):
        logger.warning("%s:%s %s", *server.address, advice)


def _advice(memory: dict[str, str], persistence: dict[str, str], appendfsync: str | None) -> list[str]:
    found = []
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        found.append(f"may drop clients' states when its memory is full: set maxmemory-policy noeviction, not {policy}")
    if persistence.get("aof_enabled") == "0":
        found.append("loses acknowledged steps when it ends: set appendonly yes and appendfsync always")
    elif appendfsync is not None and appendfsync != "always":
        found.append(f"loses the last acknowledged steps when it ends: set appendfsync always, not {appendfsync}")
    return found


def _info(server: Server, section: str) -> dict[str, str]:
    text = _ask(server, "INFO", section)
    lines = text.decode(errors="replace").splitlines() if isinstance(text, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _appendfsync(server: Server) -> str | None:
    reply = _ask(server, "CONFIG", "GET", "appendfsync")
    return reply[1].decode() if isinstance(reply, list) and len(reply) == 2 else None


def _ask(server: Server, *command: str) -> Any:
    try:
        return server.call(command)
    except RedisError:
        return None  # a managed server may refuse; one that has just gone away is not this file's concern
