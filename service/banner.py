"""What the master says when it starts: where the service listens and what it will serve."""

from __future__ import annotations

from models.errors import RepositoryError
from models.repository import Repository
from service.settings import Settings


def banner(settings: Settings) -> str:
    """Two lines for a person; no bundle is loaded for them."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    repository = Repository(settings.models_dir)
    try:
        served = ", ".join(f"{name} {repository.resolve(name)}" for name in repository.names())
        what = served or f"nothing yet: waiting for a model in {settings.models_dir}"
    except (RepositoryError, OSError) as error:
        what = f"what loads of {settings.models_dir} ({error})"
    return (
        f"Recurve listens on http://{host}:{settings.port} with {settings.workers} worker(s); "
        f"records in {_without_password(settings.state_url)}\nServes {what}"
    )


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    credentials, at, address = rest.rpartition("@")
    return f"{scheme}{separator}***@{address}" if at and credentials else url
