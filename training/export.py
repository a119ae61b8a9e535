"""From a causal Keras model to a bundle: walked, proved, saved, compiled, described (DESIGN: the bundle)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.manifest import MANIFEST, STEP_TFLITE, Feature, GateLayer, Manifest, Target
from training.fingerprint import fingerprint
from training.proofs import (
    MAX_CONTEXT,
    Probe,
    kept_values,
    measure_fading,
    own_scale,
    prove_causal,
    prove_independent,
    prove_reacts,
    prove_stepping,
    prove_unchanged,
)
from training.refusals import ExportRefused
from training.stepped import Stepped
from training.tflite import Disagreement, check_agreement, compile_step

Say = Callable[[str], None]


def export(
    model: keras.Model,
    folder: Path,
    *,
    name: str,
    features: Sequence[Feature],
    targets: Sequence[Target],
    interval_s: float | None = None,
    quantiles: Sequence[float] = (),
    architecture: str = "custom",
    data: Sequence[NDArray[np.float32]] = (),
    unscaled: Collection[str] = (),
    job: Mapping[str, Any] | None = None,
    data_digest: str | None = None,
    allow_slow_fading: bool = False,
    say: Say = lambda _: None,
    advance: Callable[[float], None] = lambda _: None,
) -> Manifest:
    """Write the bundle of `model` into `folder`: SavedModel, assets.extra/step.tflite, manifest.json.

    `data`: real series, (n, F) float32 in raw units, to prove with beside random ones. `unscaled` names targets whose
    scale no data gives: the spread of the model's own forecasts over the random series becomes it. `say` hears what
    happened, one sentence at a time, `advance` the share done, 0 to 1. The manifest is also returned; its residuals,
    scores and file digests are still open. Raises ExportRefused, naming the layer and the reason, for what can't be
    stepped or fails a proof; then the folder is left as it was. A step.tflite that does not agree with the SavedModel
    is left out, and that is said. A model whose memory has not faded after 512 observations is refused, or, with
    `allow_slow_fading`, exported with that context length and marked: a rebuilt state then differs from a carried one.
    """
    stepped = Stepped(model, len(targets), len(quantiles))
    walk = stepped.walk
    if walk.n_features != len(features):
        raise ExportRefused("", f"the model takes {walk.n_features} features, {len(features)} are named")
    probe = Probe(walk.n_features, [(f.minimum, f.maximum) for f in features], data)
    before = kept_values(stepped)
    if unscaled:
        targets = _scaled(stepped, probe, targets, unscaled, say)
    scale = np.array([target.scale for target in targets], np.float32)
    prove_reacts(stepped, probe, scale)
    prove_causal(stepped, probe, scale)
    prove_independent(stepped, probe, scale)
    advance(0.15)
    off = prove_stepping(stepped, probe, scale)
    say(f"Stepping equals the whole pass, at most {off:.2g} of the tolerance off.")
    if walk.unlisted:
        say(f"Outside the allow-list, proved by number only: {', '.join(walk.unlisted)}.")
    advance(0.35)
    context = measure_fading(stepped, probe, scale)
    prove_unchanged(stepped, before)
    if context is None:
        if not allow_slow_fading:
            raise ExportRefused(
                "",
                f"its memory does not fade: two states still answer differently after {MAX_CONTEXT} common "
                "observations, so none could be rebuilt from a context (--allow-slow-fading exports it nevertheless)",
            )
        say(f"Its memory has not faded after {MAX_CONTEXT} observations: a rebuilt state differs from a carried one.")
    else:
        say(f"Its memory fades within {context} observations.")
    folder.mkdir(parents=True, exist_ok=True)
    advance(0.45)
    _save(stepped, folder)
    advance(0.6)
    _compile(stepped, folder, probe, scale, say, lambda share: advance(0.7 + 0.3 * share))
    advance(1.0)
    manifest = Manifest(
        name=name,
        fingerprint=fingerprint(walk),
        created=datetime.now(UTC),
        features=tuple(features),
        targets=tuple(targets),
        interval_s=interval_s,
        initial_state=tuple(map(float, walk.initial_state)),
        quantiles=tuple(quantiles),
        architecture=architecture,
        context_length=context or MAX_CONTEXT,
        slow_fading=context is None,
        gates=tuple(
            GateLayer(output=g.output, layer=g.layer, cell=g.cell, names=g.names, units=g.units)
            for outputs in walk.gate_outputs.values()
            for g in outputs
        ),
        job=dict(job) if job is not None else None,
        data_digest=data_digest,
        libraries=libraries(),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _scaled(
    stepped: Stepped, probe: Probe, targets: Sequence[Target], unscaled: Collection[str], say: Say
) -> list[Target]:
    """`targets` with the model's own spread as the scale of those named in `unscaled`; one that is still keeps its."""
    spread = dict(zip((target.name for target in targets), own_scale(stepped, probe).tolist(), strict=True))
    scales = {name: spread[name] or 1.0 for name in unscaled}
    shown = ", ".join(f"{name} {scale:.3g}" for name, scale in scales.items())
    say(f"No data gives a scale, the spread of the model's own answers to random series stands for it: {shown}.")
    return [
        target.model_copy(update={"scale": scales[target.name]}) if target.name in scales else target
        for target in targets
    ]


def libraries() -> dict[str, str]:
    """Versions of what made the bundle."""
    found = {"python": platform.python_version()}
    for package in ("tensorflow", "keras", "numpy", "ai-edge-litert"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _save(stepped: Stepped, folder: Path) -> None:
    """The SavedModel holds plain variables and functions, so that it loads without Keras and without our code."""
    module = tf.Module()
    module.weights = [weight.value for weight in stepped.walk.model.variables]
    signatures = {
        "serving_default": stepped.window.get_concrete_function(),
        "step": stepped.step.get_concrete_function(),
        "sequence": stepped.sequence.get_concrete_function(),
    }
    if any(stepped.walk.gate_outputs.values()):
        signatures["gates"] = stepped.gates.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _compile(
    stepped: Stepped,
    folder: Path,
    probe: Probe,
    scale: NDArray[np.float32],
    say: Say,
    advance: Callable[[float], None],
) -> None:
    names = ["step", "gates"] if any(stepped.walk.gate_outputs.values()) else ["step"]
    weights = sum(int(np.prod(w.shape)) * 4 for w in stepped.walk.model.trainable_weights)
    target = folder / STEP_TFLITE
    try:
        content = compile_step(folder, names, weights)
        advance(0.0)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        off = check_agreement(target, folder, probe, stepped.walk.initial_state, scale, advance)
    except Disagreement as exc:
        target.unlink(missing_ok=True)
        say(f"No step.tflite, TensorFlow will serve this version: {exc}.")
        return
    say(f"step.tflite ({len(content):,} bytes) agrees over 2,000 steps, at most {off:.2g} of the tolerance off.")
