"""What stores that save many at once have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TypeVar

from service.core.ports import Save

G = TypeVar("G")


def check_distinct(saves: Sequence[Save]) -> None:
    """ValueError if two saves are of one key."""
    if len(set(map(itemgetter(0), saves))) < len(saves):
        raise ValueError("two saves of the same key in one call")


def places_by(groups: Iterable[G]) -> dict[G, list[int]]:
    """The places at which each of `groups` stands."""
    found: dict[G, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        found[group].append(place)
    return found
