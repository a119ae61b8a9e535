"""An exported state as a JSON document: what it is in words, the record as base64, a checksum over all of it.

`sha256` is that of the document without it, keys sorted, no spaces, UTF-8: Python's json.dumps(document,
sort_keys=True, separators=(",", ":"), ensure_ascii=False). What the words say, the record says as well; the two
must agree.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from hashlib import sha256
from typing import Any

import orjson
from pydantic import Field

from service.core.errors import InvalidInput
from service.core.moving import Exported
from service.http.schemas import Body, decode_small
from service.http.times import iso_time

FORMAT = "recurve-state/1"


class StateBody(Body):
    """The document that GET state answers and PUT state takes."""

    format: str
    model: str
    client: str
    features: list[str]
    targets: list[str]
    fingerprint: str
    step: int = Field(ge=0, le=2**64 - 1)  # no record counts further, and no checksum is made of more
    context: int = Field(ge=0, le=2**64 - 1)
    created: str | None
    touched: str | None
    record: str
    sha256: str


def document(exported: Exported) -> dict[str, Any]:
    """`exported` as a JSON object."""
    record = exported.record
    content = {
        "format": FORMAT,
        "model": exported.model,
        "client": exported.client,
        "features": list(exported.features),
        "targets": list(exported.targets),
        "fingerprint": record.tracks[0].fingerprint,
        "step": record.step,
        "context": record.behind,
        "created": iso_time(record.created),
        "touched": iso_time(record.touched),
        "record": b64encode(exported.blob).decode(),
    }
    return {**content, "sha256": _checksum(content)}


def read_document(data: bytes) -> Exported:
    """What `document` made, unchanged to the letter of every member; InvalidInput naming the first that is not."""
    body = decode_small(StateBody, data)
    if body.format != FORMAT:
        raise InvalidInput("format", f"is {body.format[:40]!r}; this release reads {FORMAT!r}")
    content = body.model_dump()
    if content.pop("sha256") != _checksum(content):
        raise InvalidInput("sha256", "does not hold: the document was changed or cut on its way")
    try:
        blob = b64decode(body.record, validate=True)
    except (NotBase64, ValueError) as error:
        raise InvalidInput("record", "is not base64") from error
    exported = Exported.read(body.model, body.client, tuple(body.features), tuple(body.targets), blob)
    for name, said in document(exported).items():
        if name in content and content[name] != said:
            raise InvalidInput(name, "is not what the record itself says")
    return exported


def _checksum(content: dict[str, Any]) -> str:
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
