"""A manifest as the core knows it: arrays frozen, names resolved to columns, the interval chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.manifest import Manifest
from service.core.types import FeatureSpec, GateSpec, ModelSpec, TargetSpec

USUAL_LEVEL = 0.9  # of the interval in answers, where a model has quantiles for several


def spec_of(manifest: Manifest, version: int) -> ModelSpec:
    """The core's view of a manifest: arrays frozen, names resolved to columns.

    The interval is the pair of quantiles that lies symmetrically and comes nearest to 90 %. Look-ahead's bounds are
    the residual quantiles at the same two levels; a model without quantiles takes the residuals' own pair.
    """
    features = [feature.name for feature in manifest.features]
    targets = [target.name for target in manifest.targets]
    residual_levels = () if manifest.residuals is None else manifest.residuals.levels
    pair = _interval_pair(manifest.quantiles)
    columns = None if pair is None else (1 + pair[0], 1 + pair[1])
    lower_upper = None if pair is None else (manifest.quantiles[pair[0]], manifest.quantiles[pair[1]])
    if lower_upper is None:
        pair = _interval_pair(residual_levels)
        lower_upper = None if pair is None else (residual_levels[pair[0]], residual_levels[pair[1]])
    residuals = None
    if manifest.residuals is not None and lower_upper is not None and set(lower_upper) <= set(residual_levels):
        table = np.asarray(manifest.residuals.quantiles, np.float32)
        residuals = np.ascontiguousarray(table[:, :, [residual_levels.index(level) for level in lower_upper]])
        residuals.setflags(write=False)
    initial_state = np.asarray(manifest.initial_state, np.float32)
    initial_state.setflags(write=False)
    return ModelSpec(
        name=manifest.name,
        version=version,
        fingerprint=manifest.fingerprint,
        features=tuple(FeatureSpec(f.name, f.unit, f.minimum, f.maximum) for f in manifest.features),
        targets=tuple(TargetSpec(t.name, t.unit, t.scale) for t in manifest.targets),
        interval_s=manifest.interval_s,
        initial_state=initial_state,
        quantiles=manifest.quantiles,
        context_length=manifest.context_length,
        architecture=manifest.architecture,
        level=None if lower_upper is None else round(lower_upper[1] - lower_upper[0], 6),
        interval_columns=columns,
        residuals=residuals,
        gates=tuple(GateSpec(g.output, g.layer, g.cell, g.names, g.units) for g in manifest.gates),
        feedback=np.array([targets.index(f) for f in features], np.intp) if set(features) <= set(targets) else None,
        observed=np.array([features.index(t) if t in features else -1 for t in targets], np.intp),
        limits=tuple(_limits(manifest, target) for target in targets),
    )


def _limits(manifest: Manifest, target: str) -> tuple[float, float]:
    """The least and the most that can be observed of a target, as float32 holds it."""
    minimum, maximum = next(((f.minimum, f.maximum) for f in manifest.features if f.name == target), (None, None))
    least, most = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    return (least if minimum is None else max(minimum, least), most if maximum is None else min(maximum, most))


def _interval_pair(levels: Sequence[float]) -> tuple[int, int] | None:
    """Indices of the symmetric pair of `levels` whose coverage is nearest to the usual one, None if there is none."""
    pairs = [
        (low, high)
        for low in range(len(levels))
        for high in range(low + 1, len(levels))
        if abs(levels[low] + levels[high] - 1) < 1e-6
    ]
    return min(pairs, key=lambda pair: abs(levels[pair[1]] - levels[pair[0]] - USUAL_LEVEL), default=None)
