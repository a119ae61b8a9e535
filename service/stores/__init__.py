"""Where client records live: one driver per file, chosen by URL. Nothing here knows what a record means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from service.core.ports import StateStore
from service.stores.errors import StoreNotOpened
from service.stores.memory import MemoryStore
from service.stores.redis_url import SCHEMES, without_password
from service.stores.redis_url import parse as parse_redis
from service.stores.sqlite import SYNCHRONOUS, Durability, SqliteStore
from service.stores.sqlite_folder import is_store


def open_store(url: str) -> StateStore:
    """The store that `url` names; StoreNotOpened if it names none or can't be used.

    ``memory://`` · ``sqlite:///relative/folder`` · ``sqlite:////absolute/folder`` · either with
    ``?durability=process`` (the default) or ``?durability=power`` · ``redis://…``, ``rediss://…``,
    ``redis+cluster://…``, ``rediss+cluster://…``, see redis_url. A Redis that is away does not keep its store from
    being opened. No message holds a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreNotOpened(f"{without_password(url)!r} is no URL ({error})") from error
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        known = ", ".join(f"{scheme}://" for scheme in _OPENERS)
        raise StoreNotOpened(f"no store is called {without_password(url)!r}; known: {known}")
    return opener(url, parts)


def open_existing(url: str) -> StateStore:
    """As `open_store`, but StoreNotOpened where no store was made yet, rather than making an empty one."""
    folder = sqlite_folder(url)
    if folder is not None and folder != Path() and not is_store(folder):
        raise StoreNotOpened(f"{folder} holds no records yet; is the path right?")
    return open_store(url)


def sqlite_folder(url: str) -> Path | None:
    """The folder that a sqlite:/// URL names, None for a URL of another kind."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return Path(unquote(parts.path.removeprefix("/"))) if parts.scheme == "sqlite" else None


def is_local(url: str) -> bool:
    """Whether the store's records are on this machine, a matter of microseconds, rather than across a network."""
    return urlsplit(url).scheme not in SCHEMES


def _open_memory(url: str, parts: SplitResult) -> StateStore:
    if parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise StoreNotOpened(f"{url!r} says too much: the memory store is just memory://")
    return MemoryStore()


def _open_sqlite(url: str, parts: SplitResult) -> StateStore:
    folder = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.fragment or not folder:
        raise StoreNotOpened(f"{url!r} names no folder; write sqlite:///relative/folder or sqlite:////absolute/folder")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    durability = options.pop("durability", "process")
    if options or durability not in SYNCHRONOUS:
        raise StoreNotOpened(f"{url!r}: the only option is durability={' or '.join(SYNCHRONOUS)}")
    return SqliteStore(Path(folder), _DURABILITY[durability])


def _open_redis(url: str, parts: SplitResult) -> StateStore:
    from service.stores.redis import RedisStore  # its driver takes 0.2 s to import: not for those who don't use it

    return RedisStore(parse_redis(url, parts))


_DURABILITY: dict[str, Durability] = {name: name for name in SYNCHRONOUS}
_OPENERS: dict[str, Callable[[str, SplitResult], StateStore]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
    **dict.fromkeys(SCHEMES, _open_redis),
}
