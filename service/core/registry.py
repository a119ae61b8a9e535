"""The models being served: one immutable table, swapped whole, so that a request keeps what it first got."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from service.core.errors import ModelNotFound, NotReady
from service.core.patience import give_way
from service.core.ports import Engine
from service.core.types import ModelSpec

STABLE = "stable"
CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded version: its spec, its engine and its manifest as data."""

    spec: ModelSpec
    engine: Engine
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model's loaded versions and its labels as they stood at `generation`."""

    name: str
    generation: int
    labels: Mapping[str, int]
    versions: Mapping[int, Served]

    def version(self, number: int) -> Served:
        """That version; ModelNotFound if it is not loaded."""
        try:
            return self.versions[number]
        except KeyError:
            raise ModelNotFound(self.name, number) from None

    def labelled(self, label: str = STABLE) -> Served:
        """The version under `label`; ModelNotFound if the label names none that is loaded."""
        number = self.labels.get(label)
        if number is None:
            raise ModelNotFound(self.name)
        return self.version(number)

    def shadow_of(self, served: Served, label: str) -> Served | None:
        """The candidate that a client of this label, which `served` serves, is shadowed by; None if there is none.

        Only who is served under `stable` is shadowed, and by other weights only: there is nothing to compare else.
        """
        number = self.labels.get(CANDIDATE)
        if number is None or (label != STABLE and label in self.labels):
            return None
        candidate = self.versions[number]
        return None if candidate.spec.fingerprint == served.spec.fingerprint else candidate

    def by_fingerprint(self, fingerprint: str) -> Served | None:
        """The loaded version with these weights, None if there is none."""
        return next((v for v in self.versions.values() if v.spec.fingerprint == fingerprint), None)


class Registry:
    """Resolves names to loaded versions. Reads take no lock: the table is replaced, never changed."""

    def __init__(self) -> None:
        self._models: Mapping[str, ServedModel] = MappingProxyType({})
        self.on_stale: Callable[[str], None] | None = None

    def at_least(self, model: ServedModel, generation: int) -> ServedModel:
        """`model`, looked up again by `on_stale` if a client's record has seen labels newer than its own.

        Still older afterwards, the repository itself went back; its word then counts.
        """
        if generation <= model.generation or self.on_stale is None:
            return model
        give_way()
        self.on_stale(model.name)
        return self.model(model.name)

    def replace(self, models: Mapping[str, ServedModel]) -> None:
        """Serve exactly `models` from the next look-up on; requests under way keep what they hold."""
        self._models = MappingProxyType(dict(models))

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The table as it stands, by name."""
        return self._models

    def model(self, name: str) -> ServedModel:
        """That model. NotReady while nothing is served at all, ModelNotFound otherwise."""
        try:
            return self._models[name]
        except KeyError:
            if not self._models:
                raise NotReady("no model is loaded yet; publish one into the model repository") from None
            raise ModelNotFound(name) from None
