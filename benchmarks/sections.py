"""Sections of a page that a command writes anew, each between marks with its name; the rest is a person's."""

from __future__ import annotations

from pathlib import Path


def write_section(page: Path, name: str, text: str) -> None:
    """Puts the section into `page`, in the place of the last one, or at the end."""
    now = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(_with(now, name, _marked(name, text)), encoding="utf-8")


def carry_over(page: Path, text: str, *names: str) -> str:
    """A new `text` for `page`, with those of the named sections that are there now."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    for name in names:
        begin, end = _marks(name)
        if begin in old:
            text = _with(text, name, old[old.index(begin) : old.index(end) + len(end)] + "\n")
    return text


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def _marked(name: str, text: str) -> str:
    begin, end = _marks(name)
    return f"{begin}\n{text.strip()}\n{end}\n"


def _with(text: str, name: str, new: str) -> str:
    begin, end = _marks(name)
    if begin not in text:
        return f"{text.rstrip()}\n\n{new}".lstrip("\n")
    before, rest = text.split(begin, 1)
    return before + new + rest.split(end, 1)[1].removeprefix("\n")
