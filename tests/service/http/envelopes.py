"""Exported states changed by hand: sealed anew, so that the checksum holds and the content is what is judged."""

import base64
import hashlib
import json

from service.core.record import decode, encode
from service.core.types import ClientKey
from service.http.times import iso_time


def sealed(document, **changes):
    """`document` with `changes`, its checksum made as its documentation says."""
    content = {**document, **changes}
    content.pop("sha256", None)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def blob_of(document):
    return base64.b64decode(document["record"])


def with_blob(document, blob, **said):
    return sealed(document, record=base64.b64encode(blob).decode(), **said)


def with_record(document, change):
    """`document` after `change` did something to its decoded record, with a record checksum that holds."""
    key = ClientKey("", document["model"], document["client"])
    record = decode(key, blob_of(document))
    change(record)
    said = {"step": record.step, "context": record.behind, "fingerprint": record.tracks[0].fingerprint}
    said |= {"created": iso_time(record.created), "touched": iso_time(record.touched)}
    return with_blob(document, encode(key, record), **said)
