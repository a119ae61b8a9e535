"""What is made of a model as it is served now, and made anew once it is served otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from service.core.registry import ServedModel

T = TypeVar("T")


class PerModel(Generic[T]):
    """One thing for each model, kept until another ServedModel of its name comes. Safe from any thread."""

    def __init__(self, make: Callable[[ServedModel], T]) -> None:
        self._make = make
        self._made: dict[str, tuple[ServedModel, T]] = {}

    def of(self, model: ServedModel) -> T:
        """What `make` makes of this very model."""
        known = self._made.get(model.name)
        if known is None or known[0] is not model:
            known = self._made[model.name] = model, self._make(model)
        return known[1]
