"""The core's value objects: frozen, slotted, and free of any framework."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import nextafter
from struct import Struct
from typing import Any, Literal, NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

_UNQUOTED = re.compile(r"[A-Za-z0-9_.~/-]+")  # what `quote` leaves as it is, and what joins the parts

T = TypeVar("T")

FloatArray = NDArray[np.float32]

# Every real number below this in size rounds to a finite float32: half a step beyond the largest.
FLOAT32_BOUND = 2.0**128 - 2.0**103
FLOAT32_MOST = nextafter(FLOAT32_BOUND, 0.0)
LEAST_ERROR = 1e-6  # of `scale`: what a client that was never wrong is taken to err
MOST_ERROR = 1e5  # of `scale`: a sensor's 1e20 for "no data" must not leave sums to which real errors add nothing
GapPolicy = Literal["fill", "restart", "reject"]
Status = Literal["started", "carried", "restarted", "rebuilt"]


def of_tuple(kind: type[T]) -> Callable[[tuple[Any, ...]], T]:
    """What makes a named tuple of `kind` of a plain one with all its fields: for where every request makes one, as
    its own constructor takes twice as long."""
    return cast(Callable[[tuple[Any, ...]], T], partial(tuple.__new__, cast(Any, kind)))


class ClientKey(NamedTuple):
    """Whose record: names of a tenant, a model and a client, 1-256 printable characters each."""

    tenant: str
    model: str
    client: str

    def path(self) -> str:
        """The key in storage: three percent-encoded parts joined by '/'; unlike names never meet."""
        if _UNQUOTED.fullmatch(plain := "/".join(self)) and plain.count("/") == 2:
            return plain
        return f"{quote(self.tenant, safe='')}/{quote(self.model, safe='')}/{quote(self.client, safe='')}"

    @classmethod
    def of_path(cls, path: str) -> ClientKey:
        """The key whose `path` this is."""
        return cls(*map(unquote, path.split("/")))


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One column of an observation; limits in its unit, None for unlimited."""

    name: str
    unit: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One predicted quantity; `scale` is the standard deviation of its training values."""

    name: str
    unit: str
    scale: float


@dataclass(frozen=True, slots=True)
class GateSpec:
    """One recurrent layer's gates, as `Engine.gates` returns them. `output` is the runtime's tensor name."""

    output: str
    layer: str
    cell: str
    names: tuple[str, ...]
    units: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the core knows of one version of a model (the manifest's data, frozen).

    ``initial_state`` (S,) float32 is the fresh state. ``residuals`` (H, K, 2) float32 or None: lower and upper
    residual quantiles of look-ahead at `level`, row h - 1 for horizon h. ``interval_columns``: the columns of y
    that bound the interval at `level`, None for a model without quantiles. ``feedback`` (F,) int: for each
    feature, the target that predicts it; None if some feature is not predicted. ``observed`` (K,) int: for each
    target, the feature that observes it, -1 if none does. `limits`: for each target the least and the most that can
    be observed; empty where nothing is known of it. `marked`: for each target that feature, and how large an
    error counts at most and at least. `ranges`: for each feature the least and the most that is taken. `row`: an
    observation's numbers as the bytes of a row of float32.
    """

    name: str
    version: int
    fingerprint: str
    features: tuple[FeatureSpec, ...]
    targets: tuple[TargetSpec, ...]
    interval_s: float | None
    initial_state: FloatArray
    quantiles: tuple[float, ...]
    context_length: int
    architecture: str = "lstm"
    level: float | None = None
    interval_columns: tuple[int, int] | None = None
    residuals: FloatArray | None = None
    gates: tuple[GateSpec, ...] = ()
    feedback: NDArray[np.intp] | None = field(default=None)
    observed: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    limits: tuple[tuple[float, float], ...] = ()
    marked: tuple[tuple[int, float, float], ...] = field(init=False)
    ranges: tuple[tuple[float, float], ...] = field(init=False)
    row: Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        errors = ((MOST_ERROR * target.scale, LEAST_ERROR * target.scale) for target in self.targets)
        marked = ((feature, *both) for feature, both in zip(self.observed.tolist(), errors, strict=False))
        object.__setattr__(self, "marked", tuple(marked))
        ranges = (
            (
                -FLOAT32_MOST if feature.minimum is None else max(feature.minimum, -FLOAT32_MOST),
                FLOAT32_MOST if feature.maximum is None else min(feature.maximum, FLOAT32_MOST),
            )
            for feature in self.features
        )
        object.__setattr__(self, "ranges", tuple(ranges))
        object.__setattr__(self, "row", Struct(f"<{len(self.features)}f"))

    @property
    def columns(self) -> int:
        """1 + Q, the width of y."""
        return 1 + len(self.quantiles)
