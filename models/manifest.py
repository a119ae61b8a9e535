"""The manifest: what a version of a model promises, as data that names no code."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = 1
MANIFEST = "manifest.json"
STEP_TFLITE = "assets.extra/step.tflite"
MODEL_KERAS = "assets.extra/model.keras"  # what a later training starts from; the service never opens it

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """Settings shared by every part of a manifest: frozen, and no key beyond those named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(Part):
    """One column of an observation. `minimum` and `maximum` are physical limits in `unit`, or null."""

    name: str = Field(min_length=1, max_length=64)
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


class Target(Part):
    """One predicted quantity. `scale` is the standard deviation of its training values, in `unit`."""

    name: str = Field(min_length=1, max_length=64)
    unit: str = ""
    scale: float = Field(gt=0)


class GateLayer(Part):
    """One recurrent layer's slice of what the `gates` signature returns: each named gate has `units` values.

    `output` names the signature's output tensor, (batch, len(names) * units), gates in the order of `names`.
    """

    output: str
    layer: str
    cell: str
    names: tuple[str, ...] = Field(min_length=1)
    units: int = Field(gt=0)


class Residuals(Part):
    """Hold-out residuals (observed - predicted) of look-ahead, by horizon: row h - 1 is horizon h.

    `quantiles[h - 1][k]` are target k's residual quantiles at `levels`, in the target's unit.
    """

    levels: tuple[float, ...] = Field(min_length=1)
    quantiles: tuple[tuple[tuple[float, ...], ...], ...] = Field(min_length=1)


class Manifest(Part):
    """What a bundle promises (DESIGN: the bundle). Shapes: F features, K targets, S floats of state, Q quantiles.

    `initial_state` is the fresh state, S floats. `quantiles` are the levels of columns 1..Q of `y`, rising;
    column 0 is the point forecast. `context_length` is C, the observations a state is rebuilt from.
    `slow_fading` tells that the memory outlasts C, so that a rebuilt state differs from a carried one.
    `data_until` is the time (epoch seconds) of the newest observation it was made from, `trained_until` of the newest
    that its fit has seen; what came between the two judged it.
    `files` maps every other file of the bundle to its sha256. The version is the folder's name, not a field.
    """

    format: Literal[1] = 1
    name: Name
    fingerprint: Digest
    created: datetime
    features: tuple[Feature, ...] = Field(min_length=1)
    targets: tuple[Target, ...] = Field(min_length=1)
    interval_s: float | None = Field(default=None, ge=1e-3)
    initial_state: tuple[float, ...]
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    architecture: str
    context_length: int = Field(ge=1, le=512)
    slow_fading: bool = False
    gates: tuple[GateLayer, ...] = ()
    residuals: Residuals | None = None
    scores: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    data_digest: Digest | None = None
    data_until: float | None = None
    trained_until: float | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    files: dict[str, Digest] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for what, names in (
            ("features", [feature.name for feature in self.features]),
            ("targets", [target.name for target in self.targets]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} repeat a name: {names}")
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles must rise: {self.quantiles}")
        if self.residuals is not None:
            k, levels = len(self.targets), len(self.residuals.levels)
            for row in self.residuals.quantiles:
                if len(row) != k or any(len(cell) != levels for cell in row):
                    raise ValueError("residuals.quantiles must be [horizon][target][level]")
        return self

    def contract(self) -> tuple[Any, ...]:
        """What may never change between versions of one name: features, targets, units, interval."""
        return (
            tuple((feature.name, feature.unit) for feature in self.features),
            tuple((target.name, target.unit) for target in self.targets),
            self.interval_s,
        )


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of the bundle in folder `bundle`. OSError if there is none, ValueError if it is not valid."""
    return Manifest.model_validate_json((bundle / MANIFEST).read_bytes())
