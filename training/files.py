"""Reading a CSV file, a Parquet file or a folder of these: all of it, or what was not there the last time."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from training.batch import Batch, SourceInvalid
from training.job import Source

COMPRESSED = (".gz", ".bz2", ".zip", ".xz", ".zst", ".tar")


def read_files(source: Source, mark: Mapping[str, Any] | None) -> Batch:
    """What `source`, a path, holds beyond `mark`; everything if what `mark` knows of has changed.

    A CSV file is read on from where it ended, as long as all before is as it was; a compressed one is read whole, and
    so is a Parquet file that has changed. Of a folder the Parquet files that are new are read. SourceInvalid.
    """
    try:
        if source.kind == "csv":
            return _csv(source, mark)
        return _parquet(source, mark)
    except OSError as exc:
        raise SourceInvalid(source, f"cannot be read: {exc.strerror or exc}") from exc
    except (EOFError, zlib.error) as exc:
        raise SourceInvalid(source, f"is damaged or cut off: {exc}") from exc
    except ValueError as exc:  # pandas' and pyarrow's parser errors are ValueErrors
        raise SourceInvalid(source, f"is not {source.kind}: {exc}") from exc


def _csv(source: Source, mark: Mapping[str, Any] | None) -> Batch:
    file = source.file
    ids = {} if source.series is None else {source.series: str}  # as they stand there, "007" too
    data = file.read_bytes()
    if file.suffix in COMPRESSED:
        digest = hashlib.sha256(data).hexdigest()
        looked = {"digest": digest}
        return Batch(None, looked, False) if mark == looked else Batch(pd.read_csv(file, dtype=ids), looked, True)
    end = data.rfind(b"\n") + 1  # a line that has no end yet may be cut off: it is read again the next time
    now: dict[str, Any] = {"offset": end, "digest": hashlib.sha256(data[:end]).hexdigest()}
    begin = _unchanged(data, mark)
    if begin is None:
        return Batch(pd.read_csv(io.BytesIO(data), dtype=ids), now, True)
    if not data[begin:].strip():
        return Batch(None, now, False)
    head = data[: data.find(b"\n") + 1]
    return Batch(pd.read_csv(io.BytesIO(head + data[begin:]), dtype=ids), now, False)


def _unchanged(data: bytes, mark: Mapping[str, Any] | None) -> int | None:
    """Where the file ended the last time; None if what was read then is not there any more."""
    if mark is None or not 0 < mark.get("offset", 0) <= len(data):
        return None
    offset: int = mark["offset"]
    return offset if hashlib.sha256(data[:offset]).hexdigest() == mark["digest"] else None


def _parquet(source: Source, mark: Mapping[str, Any] | None) -> Batch:
    root = source.file
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    if not files:
        raise SourceInvalid(source, "is a folder without a .parquet file")
    fresh, now, whole = new_files(root, files, mark)
    if not fresh and not whole:
        return Batch(None, now, False)
    tables = [pd.read_parquet(file) for file in fresh]
    return Batch(tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True), now, whole)


def new_files(
    root: Path, files: list[Path], mark: Mapping[str, Any] | None, *, growing: bool = False
) -> tuple[list[Path], dict[str, Any], bool]:
    """Which of `files` to read, what to remember, and whether that is to be all there is.

    It is where a file that was read before is gone, or has changed; `growing`: one that has changed holds what it held
    and more, so that it alone is read again.
    """
    looks = {file.relative_to(root).as_posix(): file.stat() for file in files}
    now = {name: [look.st_size, look.st_mtime_ns, look.st_ino] for name, look in looks.items()}
    known = {} if mark is None else mark.get("files", {})
    changed = {name for name in known if now.get(name) != known[name]}
    whole = not known or bool(changed - now.keys() if growing else changed)
    fresh = [file for name, file in zip(now, files, strict=True) if whole or now[name] != known.get(name)]
    return fresh, {"files": now}, whole
