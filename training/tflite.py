"""`step` and `gates` compiled for LiteRT, and the agreement without which the file is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.proofs import Probe, worst
from training.quiet import quiet
from training.stepping import LiteStepper

STEPS = 2_000
BATCHES = (1, 32)


class Disagreement(Exception):
    """LiteRT does not answer as TensorFlow does; the message has the figures."""


def compile_step(saved_model: Path, signatures: list[str], weight_bytes: int) -> bytes:
    """The .tflite of these signatures, builtin operations only. Disagreement if it can't be made or has no weights."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=signatures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        with quiet():
            content: bytes = converter.convert()
    except Exception as exc:
        raise Disagreement(f"it does not convert: {str(exc).strip().splitlines()[0][:200]}") from exc
    if len(content) < 0.9 * weight_bytes:
        raise Disagreement(f"the file has {len(content):,} bytes for {weight_bytes:,} bytes of weights")
    return content


def check_agreement(
    tflite: Path,
    saved_model: Path,
    probe: Probe,
    initial: NDArray[np.float32],
    scale: NDArray[np.float32],
    advance: Callable[[float], None] = lambda _: None,
) -> float:
    """Run LiteRT and the SavedModel side by side, each on its own state; the largest difference in tolerances.

    2,000 steps at batch 1 and 32, the one series of batch 1 also a row of the 32, where it has to be answered alike.
    Disagreement if any step is beyond promise 1's tolerance, or if the difference grows: the last quarter's is more
    than four times the first's and worth mentioning.
    """
    loaded = tf.saved_model.load(str(saved_model))  # held on to: it owns the variables
    reference = _looped(loaded.signatures["step"])
    largest, series, alone = 0.0, probe.random(max(BATCHES), STEPS), None
    for turn, batch in enumerate(BATCHES):
        lite = LiteStepper(tflite)
        x = series[-batch:]
        fresh = np.tile(initial, (batch, 1))
        ys, state = [], fresh
        for t in range(STEPS):
            y, state = lite.step(x[:, t], state)
            ys.append(y)
            if t % 200 == 0:
                advance((turn + t / STEPS) / len(BATCHES))
        expected = reference(tf.constant(x), tf.constant(fresh)).numpy()
        off = np.array([worst(y, expected[t], scale) for t, y in enumerate(ys)])
        largest = max(largest, accept(off, batch))
        last = np.stack([y[-1:] for y in ys])
        alone = last if alone is None else alone
        if worst(last, alone, scale) > 1:
            raise Disagreement(f"batch {batch}: a series is answered otherwise than alone")
    return largest


def accept(off: NDArray[np.float64], batch: int) -> float:
    """The largest of ``off`` (steps,), differences in tolerances; Disagreement if one is beyond 1 or they grow."""
    quarter = len(off) // 4
    first, last = off[:quarter].max(), off[-quarter:].max()
    if off.max() > 1:
        raise Disagreement(f"batch {batch}: off by {off.max():.2g} tolerances at step {int(off.argmax()) + 1}")
    if last > max(4 * first, 0.1):
        raise Disagreement(f"batch {batch}: the difference grows, {first:.2g} to {last:.2g} tolerances")
    return float(off.max())


def _looped(step: Any) -> Any:
    """The SavedModel's `step`, called once per observation of x (B, T, F) -> y (T, B, K, 1 + Q)."""

    def run(x: Any, state: Any) -> Any:
        length = tf.shape(x)[1]

        def body(t: Any, state: Any, ys: Any) -> tuple[Any, Any, Any]:
            out = step(x=x[:, t], state=state)
            return t + 1, tf.ensure_shape(out["state"], state.shape), ys.write(t, out["y"])

        ys = tf.TensorArray(tf.float32, size=length)
        return tf.while_loop(lambda t, *_: t < length, body, (0, state, ys))[2].stack()

    return tf.function(run, autograph=False)
