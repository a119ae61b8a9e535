"""Every way the service refuses, as one family built from data; `http.errors` maps it to status codes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


class RecurveError(Exception):
    """Base of all refusals. `code` is a stable word for programs, `extra` rides along in the answer."""

    code = "internal"
    retry_after_s: float | None = None

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class ModelNotFound(RecurveError):
    code = "model_not_found"

    def __init__(self, model: str, version: int | None = None) -> None:
        what = f"model {model!r}" if version is None else f"version {version} of model {model!r}"
        super().__init__(f"{what} is not served here")


class EvidenceNotFound(RecurveError):
    """Nothing is kept of a trial of that version."""

    code = "evidence_not_found"

    def __init__(self, model: str, version: int) -> None:
        super().__init__(f"no evidence is kept of version {version} of model {model!r}: it was never on trial here")


class ClientNotFound(RecurveError):
    """Nothing is kept for the client; `last_seen` (epoch seconds) if that is because it expired."""

    code = "client_not_found"

    def __init__(self, model: str, client: str, last_seen: float | None = None) -> None:
        detail = f"model {model!r} keeps no state for client {client!r}"
        if last_seen is None:
            super().__init__(detail)
        else:
            moment = datetime.fromtimestamp(last_seen, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            super().__init__(f"{detail}: it expired, its next observation restarts it", last_seen=moment)


class ClientExists(RecurveError):
    code = "client_exists"

    def __init__(self, model: str, client: str) -> None:
        super().__init__(f"model {model!r} keeps a client {client!r} already")


class ForeignState(RecurveError):
    """The state was made by other weights than those that would step it here. Nothing moved."""

    code = "foreign_state"

    def __init__(self, model: str, made_by: str, version: int, fingerprint: str) -> None:
        super().__init__(
            f"the state was made by the weights {made_by[:12]}…, model {model!r} is served by version {version} with "
            f"the weights {fingerprint[:12]}…; it can be rebuilt from the observations it brings, if that is asked for",
            fingerprint=made_by,
            served={"version": version, "fingerprint": fingerprint},
        )


class InvalidInput(RecurveError):
    """A value the request carries is wrong; `field` names it. Nothing moved."""

    code = "invalid"

    def __init__(self, field: str, detail: str, *, code: str | None = None) -> None:
        super().__init__(f"{field}: {detail}", field=field)
        if code is not None:
            self.code = code


class Unsupported(RecurveError):
    """The model can't do what is asked; the detail says why."""

    code = "unsupported"


class OrderConflict(RecurveError):
    """The request does not follow the client's last one (step, time or key). Nothing moved.

    `code` is one of step_conflict, key_conflict, already_absorbed, time_conflict, too_soon, gap.
    """

    def __init__(self, code: str, detail: str, expected_step: int, **extra: Any) -> None:
        super().__init__(detail, expected_step=expected_step, **extra)
        self.code = code


class AtCapacity(RecurveError):
    code = "at_capacity"

    def __init__(self, limit: int, retry_after_s: float) -> None:
        super().__init__(f"no room for a new client: {limit} are kept; those that exist go on")
        self.retry_after_s = retry_after_s


class Contended(RecurveError):
    """Other writers kept winning this client's record for the whole bound. Nothing moved."""

    code = "contended"
    retry_after_s = 1.0


class StoreUnavailable(RecurveError):
    """The store is away, full or stuck. Nothing half-written; it recovers by itself."""

    code = "store_unavailable"
    retry_after_s = 2.0


class NotReady(RecurveError):
    code = "not_ready"
    retry_after_s = 5.0


class BundleInvalid(RecurveError):
    """A bundle does not load: its digests, its manifest or its graph do not hold."""

    code = "bundle_invalid"


class LabelNotFound(RecurveError):
    """The model has no such label."""

    code = "label_not_found"


class LabelKept(RecurveError):
    """The label can't be taken away. Nothing moved."""

    code = "label_kept"


class LabelsMoved(RecurveError):
    """The labels are of another generation than the caller decided on. Nothing moved."""

    code = "labels_moved"

    def __init__(self, detail: str, generation: int) -> None:
        super().__init__(detail, generation=generation)


class VersionUnfit(RecurveError):
    """The version is not as it was published, or does not load here. Nothing moved."""

    code = "version_unfit"


class RepositoryReadOnly(RecurveError):
    """The service may not write to the model repository. Nothing moved."""

    code = "read_only"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the service can't write to its model repository ({why}): give it a writable one, or move the label where "
            "the repository is written"
        )


class RepositoryUnavailable(RecurveError):
    """The model repository is held by another process, or does not read. Nothing moved."""

    code = "repository_unavailable"
    retry_after_s = 2.0


class RecordCorrupt(RecurveError):
    """Bytes of a client record that can't be read: torn, foreign or of another format version."""

    code = "corrupt"
