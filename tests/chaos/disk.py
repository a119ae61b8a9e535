"""What a disk holds after a power cut: all that was synced, and of the rest any part, down to single sectors.

Of what was written to a file after its last sync, each sector of each write and each truncation may have happened or
not, whatever came after it. Bytes beside a write keep their value (SQLite's powersafe overwrite, which it assumes of
every disk). Files are created and deleted in order; a sync of a file makes its creation last, and all before it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.journal import CREATE, DELETE, SYNC, SYNCED, TRUNCATE, WRITE, Event

SECTOR = 512


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Event]] = field(default_factory=list)  # numbered by their place in the journal


class Disk:
    """Fed with events in order; `cut` tells what is left at any time. `lasting` are files synced before the journal."""

    def __init__(self, lasting: Mapping[str, bytes]) -> None:
        self._files = {name: _File(bytearray(content)) for name, content in lasting.items()}
        self._lasting = dict(self._files)  # the folder as a power cut leaves it at the least
        self._changes: list[tuple[int, str, _File | None]] = []  # of the folder, not known to last
        self._begun: dict[int, int] = {}  # syncs under way: where they began
        self._at = 0

    def feed(self, event: Event) -> None:
        """Lets one event happen."""
        self._at += 1
        if event.name.endswith("-shm"):
            return  # memory that processes share, made anew after a crash
        if event.kind == CREATE and event.name not in self._files:
            self._change(event.name, _File())
        elif event.kind == DELETE and event.name in self._files:
            self._change(event.name, None)
        elif event.kind in (WRITE, TRUNCATE):
            self._files[event.name].pending.append((self._at, event))
        elif event.kind == SYNC:
            self._begun[event.number] = self._at
        elif event.kind == SYNCED:
            self._sync(event.name, self._begun.pop(event.number))

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """The files that a power cut could leave now. What is left of the unsynced part is `rng`'s choice."""
        share = rng.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        folder = dict(self._lasting)
        for _, name, file in self._changes[: rng.randint(0, len(self._changes))]:
            _put(folder, name, file)
        return {name: _torn(file, rng, share) for name, file in folder.items()}

    def _change(self, name: str, file: _File | None) -> None:
        _put(self._files, name, file)
        self._changes.append((self._at, name, file))

    def _sync(self, name: str, begun: int) -> None:
        file = self._files[name]
        while file.pending and file.pending[0][0] < begun:
            _apply(file.durable, file.pending.pop(0)[1])
        created = max((at for at, _, made in self._changes if made is file), default=0)
        while self._changes and self._changes[0][0] <= created:
            _, changed, made = self._changes.pop(0)
            _put(self._lasting, changed, made)


def _put(folder: dict[str, _File], name: str, file: _File | None) -> None:
    if file is None:
        folder.pop(name, None)
    else:
        folder[name] = file


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == TRUNCATE:
        del content[event.number :]
        content.extend(bytes(event.number - len(content)))
    else:
        _write(content, event.number, event.data)


def _write(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _torn(file: _File, rng: random.Random, share: float) -> bytes:
    content = bytearray(file.durable)
    for _, event in file.pending:
        whole = rng.random()
        if whole < 0.5 or event.kind == TRUNCATE:  # most writes happen as a whole or not at all
            if rng.random() < share:
                _apply(content, event)
            continue
        end = event.number + len(event.data)
        for start in range(event.number - event.number % SECTOR, end, SECTOR):
            if rng.random() < share:
                first, last = max(start, event.number), min(start + SECTOR, end)
                _write(content, first, event.data[first - event.number : last - event.number])
    return bytes(content)


def lay(files: Mapping[str, bytes], folder: Path) -> None:
    """Makes `folder` of these files."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
