"""The models being served: one immutable table, swapped whole, so that a request keeps what it first got."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from service.core.errors import ModelNotFound, NotReady
from service.core.patience import give_way
from service.core.ports import Clock, Engine
from service.core.types import ModelSpec

STABLE = "stable"
CANDIDATE = "candidate"
AGAIN_S = 1.0  # labels older than a record are looked up again so often, not for each of its steps
_MOST_BEHIND = 256


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded version: its spec, its engine and its manifest as data."""

    spec: ModelSpec
    engine: Engine
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model's loaded versions and its labels as they stood at `generation`.

    `context_rows`: how many observations a client's context holds, so that any of the versions rebuilds its state.
    """

    name: str
    generation: int
    labels: Mapping[str, int]
    versions: Mapping[int, Served]
    context_rows: int = field(init=False)

    def __post_init__(self) -> None:
        most = max((version.spec.context_length for version in self.versions.values()), default=0)
        object.__setattr__(self, "context_rows", most)

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

    def __init__(self, monotonic: Clock = time.monotonic) -> None:
        self._models: Mapping[str, ServedModel] = MappingProxyType({})
        self._monotonic = monotonic
        self._behind: dict[tuple[str, int], tuple[ServedModel, float]] = {}
        self.on_stale: Callable[[str], None] | None = None

    def at_least(self, model: ServedModel, generation: int) -> ServedModel:
        """`model`, looked up again by `on_stale` if a client's record has seen labels newer than its own.

        Still older afterwards, the repository itself went back, or is another one; its word then counts, for AGAIN_S.
        """
        if generation <= model.generation or self.on_stale is None:
            return model
        looked, until = self._behind.get((model.name, generation), (None, 0.0))
        if looked is model and self._monotonic() < until:
            return model
        give_way()
        self.on_stale(model.name)
        found = self.model(model.name)
        if found.generation < generation:
            if len(self._behind) >= _MOST_BEHIND:
                self._behind = {}
            self._behind[model.name, generation] = found, self._monotonic() + AGAIN_S
        return found

    def replace(self, models: Mapping[str, ServedModel]) -> None:
        """Serve exactly `models` from the next look-up on; requests under way keep what they hold."""
        self._models = MappingProxyType(dict(models))
        self._behind = {}  # and none of it is kept alive by this

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
