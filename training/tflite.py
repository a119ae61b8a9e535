"""`step` and `gates` compiled for LiteRT, and the agreement without which the file is thrown away."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.proofs import Probe, worst
from training.stepping import LiteStepper

STEPS = 2_000
BATCHES = (1, 32)


class Disagreement(Exception):
    """LiteRT does not answer as TensorFlow does; the message has the figures."""


def compile_step(saved_model: Path, signatures: list[str], weight_bytes: int) -> bytes:
    """The .tflite of these signatures, builtin operations only. Disagreement if it can't be made or lost its weights."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=signatures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        with _quiet():
            content: bytes = converter.convert()
    except Exception as exc:
        raise Disagreement(f"it does not convert: {str(exc).strip().splitlines()[0][:200]}") from exc
    if len(content) < 0.9 * weight_bytes:
        raise Disagreement(f"the file has {len(content):,} bytes for {weight_bytes:,} bytes of weights")
    return content


def check_agreement(tflite: Path, saved_model: Path, probe: Probe, initial: NDArray[np.float32],
                    scale: NDArray[np.float32], steps: int = STEPS) -> float:  # fmt: skip
    """Run LiteRT and the SavedModel side by side, each on its own state; the largest difference in tolerances.

    2,000 steps at batch 1 and 32. Disagreement if any step is beyond promise 1's tolerance or the difference of
    the last quarter has grown beyond that of the first.
    """
    loaded = tf.saved_model.load(str(saved_model))
    step = loaded.signatures["step"]
    largest = 0.0
    for batch in BATCHES:
        lite = LiteStepper(tflite)
        x = probe.random(batch, steps)
        state_a = np.tile(initial, (batch, 1))
        state_b: Any = tf.constant(state_a)
        off = np.empty(steps)
        for t in range(steps):
            y_a, state_a = lite.step(x[:, t], state_a)
            out = step(x=tf.constant(x[:, t]), state=state_b)
            state_b = out["state"]
            off[t] = worst(y_a, out["y"].numpy(), scale)
        first, last = off[: steps // 4].max(), off[-(steps // 4) :].max()
        if off.max() > 1:
            raise Disagreement(f"batch {batch}: off by {off.max():.2g} tolerances at step {int(off.argmax()) + 1}")
        if last > max(4 * first, 0.1):
            raise Disagreement(f"batch {batch}: the difference grows, {first:.2g} to {last:.2g} tolerances")
        largest = max(largest, float(off.max()))
    return largest


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the converter's chatter, which native code writes past sys.stderr, off the terminal."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(io.StringIO()):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
