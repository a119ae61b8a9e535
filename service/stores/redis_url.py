"""URLs of Redis stores: one server or a Cluster, plain or encrypted."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from service.stores.errors import StoreNotOpened

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")

_PORT = 6379
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}  # options of rediss: redis-py's names
_FORMS = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE] or redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a Redis store is. `options` are redis-py's for each connection; they hold the password."""

    servers: tuple[tuple[str, int], ...]
    cluster: bool
    encrypted: bool
    options: Mapping[str, Any] = field(repr=False)


def parse(url: str, parts: SplitResult) -> Whereabouts:
    """What `url`, of which `parts` are the parts, says; StoreNotOpened with what to write instead.

    ``redis://[user:password@]host[:port][/database]`` · ``redis+cluster://[user:password@]host[:port][,host[:port]…]``
    (any of its servers) · ``rediss://`` and ``rediss+cluster://`` for TLS, with ``?ca=``, ``cert=`` and ``key=`` naming
    PEM files where the system's authorities do not do.
    """
    shown, encrypted, cluster = without_password(url), parts.scheme.startswith("rediss"), "+" in parts.scheme
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    options: dict[str, Any] = {}
    if credentials:
        options = {"username": unquote(user) or None, "password": unquote(password) or None}
    servers = tuple(_server(shown, host) for host in hosts.split(","))
    if len(servers) > 1 and not cluster:
        raise StoreNotOpened(f"{shown!r} names several servers; for a Cluster write redis+cluster://")
    database = parts.path.strip("/")
    if parts.fragment or not (database == "" or database.isdecimal()):
        raise StoreNotOpened(f"{shown!r} can't be read; write {_FORMS}")
    if cluster and database not in ("", "0"):
        raise StoreNotOpened(f"{shown!r}: a Cluster has no databases but 0")
    if database:
        options["db"] = int(database)
    return Whereabouts(servers, cluster, encrypted, options | _files(shown, encrypted, parts.query))


def without_password(url: str) -> str:
    """`url` with what stands before its last @, and the values of its options, hidden."""
    scheme, separator, rest = url.partition("://")
    address, question, query = rest.partition("?")
    credentials, at, address = address.rpartition("@")
    query = "&".join(f"{option.partition('=')[0]}=***" for option in query.split("&")) if question else ""
    return f"{scheme}{separator}{'***' if at and credentials else ''}{at}{address}{question}{query}"


def _server(shown: str, host: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
        (name or "").encode("idna")  # as the look-up will
    except ValueError as error:
        raise StoreNotOpened(f"{shown!r}: {host!r} is no HOST[:PORT] ({error})") from None
    if not name:
        raise StoreNotOpened(f"{shown!r} names no server; write {_FORMS}")
    return name, _PORT if port is None else port


def _files(shown: str, encrypted: bool, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options:
        return {}
    if not encrypted or not set(options) <= set(_FILES):
        raise StoreNotOpened(f"{shown!r}: the only options are ca, cert and key, files in PEM format, of a rediss URL")
    context = ssl.create_default_context()
    try:
        if "ca" in options:
            context.load_verify_locations(options["ca"])
        if "cert" in options or "key" in options:
            context.load_cert_chain(options.get("cert", ""), options.get("key"))
    except OSError as error:  # an SSLError is one
        raise StoreNotOpened(f"{shown!r}: the files of {', '.join(options)} can't be used ({error})") from error
    return {_FILES[name]: file for name, file in options.items()}
