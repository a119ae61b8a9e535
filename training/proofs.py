"""The numeric proofs every export has to pass: causal, independent, stepped == whole, chunked == whole, and fading.

They catch what an allow-list can't see: slices and sums over time, normalisations over time, foreign layers. A proof
that fails names the first node of the graph whose own output is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.refusals import ExportRefused
from training.stepped import Stepped

Array = NDArray[np.float32]
TOLERANCE = 1e-5
LENGTHS = (1, 2, 50, 500)
MAX_CONTEXT = 512
LONG = 2 * MAX_CONTEXT + 64  # for calls that no list vouches for: a look far back shows in no shorter series
MIN_CONTEXT = 64
REACTION = 20  # tolerances that y has to move by, so that a proof on it says something


def worst(a: Array, b: Array, scale: Array) -> float:
    """How far `a` is from the reference `b` in units of promise 1's tolerance: <= 1 is equal. Last axes (K, 1 + Q)."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    room = TOLERANCE * np.maximum(np.abs(b), scale[:, None])
    return float((np.abs(a - b) / room).max(initial=0.0))


class Probe:
    """Series to prove with: random ones that look like the data, and slices of the data itself.

    Random series are stationary, with the data's distribution of values and correlation from one step to the next
    (an autoregression put through the data's quantiles). ``data``: arrays (n, F), raw units. Without data: normal
    values of mean 0 and deviation 1, or spread over `limits`, (minimum, maximum) of each feature, None for unlimited.
    """

    def __init__(
        self,
        n_features: int,
        limits: Sequence[tuple[float | None, float | None]] = (),
        data: Sequence[Array] = (),
        seed: int = 7,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._data = [np.asarray(d, np.float32) for d in data if len(d) >= 2]
        self._ranks = np.linspace(-4.0, 4.0, 513)
        self._inertia = np.full(n_features, 0.9)
        if self._data:
            levels = [0.5 * (1 + math.erf(z / math.sqrt(2))) for z in self._ranks]
            self._values = np.quantile(np.concatenate(self._data).astype(np.float64), levels, axis=0)
            spread = np.concatenate(self._data).astype(np.float64).var(axis=0)
            change = np.concatenate([np.diff(d.astype(np.float64), axis=0) for d in self._data]).var(axis=0)
            self._inertia = np.clip(1 - change / (2 * np.maximum(spread, 1e-12)), 0.0, 0.999)
        else:
            bounds = list(limits) or [(None, None)] * n_features
            self._values = np.stack([_unlike(self._ranks, *bound) for bound in bounds], axis=1)

    @property
    def has_data(self) -> bool:
        """True if there is real data to look like."""
        return bool(self._data)

    def random(self, batch: int, length: int) -> Array:
        """Random series, (batch, length, F) float32."""
        noise = self._rng.standard_normal((batch, length, len(self._inertia)))
        z = np.empty_like(noise)
        z[:, 0] = noise[:, 0]
        for t in range(1, length):
            z[:, t] = self._inertia * z[:, t - 1] + np.sqrt(1 - self._inertia**2) * noise[:, t]
        columns = [np.interp(z[..., i], self._ranks, self._values[:, i]) for i in range(z.shape[-1])]
        return np.stack(columns, axis=-1).astype(np.float32)

    def real(self, batch: int, length: int) -> Array | None:
        """Slices of the data, (batch, length, F) float32; None where no series is that long."""
        long = [d for d in self._data if len(d) >= length]
        if not long:
            return None
        picks = []
        for i in range(batch):
            series = long[i % len(long)]
            start = int(self._rng.integers(len(series) - length + 1))
            picks.append(series[start : start + length])
        return np.stack(picks)

    def each(self, batch: int, length: int) -> list[tuple[str, Array]]:
        """Random series, and real ones where there are."""
        real = self.real(batch, length)
        return [("random", self.random(batch, length))] + ([("real", real)] if real is not None else [])


def _unlike(z: NDArray[np.float64], low: float | None, high: float | None) -> NDArray[np.float64]:
    """Values for normal numbers `z` where there is no data: the middle of the limits, and never beyond them."""
    if low is not None and high is not None:
        return np.clip((low + high) / 2 + z * (high - low) / 6, low, high)
    shift = 0.0 if low is None and high is None else (low + 3.0 if low is not None else float(high or 0.0) - 3.0)
    return np.clip(z + shift, -np.inf if low is None else low, np.inf if high is None else high)


def own_scale(stepped: Stepped, probe: Probe) -> Array:
    """The standard deviation of each target's point forecast over random series, (K,); 0 for one that never moves."""
    x = tf.constant(probe.random(16, 200))
    y = (stepped.whole(x) if stepped.timed else stepped.stepwise(x, stepped.fresh(16))["y"]).numpy()
    _check_finite(y, "random", 200)
    point = y[..., 0].astype(np.float64)
    spread = point.std(axis=(0, 1))
    return np.where(spread > TOLERANCE * np.abs(point).max(axis=(0, 1)), spread, 0.0).astype(np.float32)


def prove_reacts(stepped: Stepped, probe: Probe, scale: Array, length: int = 50) -> None:
    """ExportRefused if a target's y hardly moves from one random series to another: no other proof would see anything.

    Not asked where the probe has data: what is deaf to its own data is, and the proofs were on that data.
    """
    if probe.has_data:
        return
    y = stepped.whole(tf.constant(probe.random(16, length))).numpy()
    _check_finite(y, "random", length)
    for k in range(y.shape[2]):
        if worst(y[1:, :, k : k + 1], y[:-1, :, k : k + 1], scale[k : k + 1]) < REACTION:
            raise ExportRefused(
                "",
                f"the model does not react to the random series it is proved on: target {k + 1} of {y.shape[2]} "
                "answers all of them alike, so the proofs would prove nothing; give real ones with --data",
            )


def kept_values(stepped: Stepped) -> list[tuple[str, bytes]]:
    """Path and bytes of every weight of the model: what inference may not change. Seeds of noise are not weights."""
    return [(weight.path, np.asarray(weight).tobytes()) for weight in stepped.walk.model.weights]


def prove_unchanged(stepped: Stepped, before: list[tuple[str, bytes]]) -> None:
    """ExportRefused if a weight is no longer what `kept_values` found before the model was run."""
    for (path, old), (_, new) in zip(before, kept_values(stepped), strict=True):
        if old != new:
            raise ExportRefused(
                path.rsplit("/", 2)[-2] if "/" in path else path,
                f"its variable {path!r} changes while the model answers: all clients would share what it remembers; "
                "a client's state has to be in a recurrent layer's cell",
            )


def prove_causal(stepped: Stepped, probe: Probe, scale: Array, length: int = 48) -> None:
    """ExportRefused if y at t moves when only inputs after t change. Nothing to prove without a time axis in y."""
    if not stepped.timed:
        return
    for kind, x in probe.each(2, length):
        base = stepped.whole(tf.constant(x)).numpy()
        _check_finite(base, kind, length)
        for t in (0, 1, length // 2, length - 2):
            moved = x.copy()
            moved[:, t + 1 :] = probe.random(2, length)[:, t + 1 :]
            y = stepped.whole(tf.constant(moved)).numpy()
            if worst(y[:, : t + 1], base[:, : t + 1], scale) > 1:
                raise ExportRefused(
                    _leaking_node(stepped, x[:1], moved[:1], t),
                    f"it reads the future: what it answers at a step moves when later inputs change ({kind} series, "
                    f"step {t + 1} of {length})",
                )


def prove_independent(stepped: Stepped, probe: Probe, scale: Array, length: int = 48) -> None:
    """ExportRefused if what one client is answered moves with the others that share its batch, whole or stepped."""
    for kind, x in probe.each(3, length):
        for run in (_whole, _stepwise):
            together = run(stepped, x)
            _check_finite(together, kind, length)
            for row in (0, 1):
                alone = run(stepped, x[row : row + 1])
                if together.shape[0] != 3 or worst(together[row : row + 1], alone, scale) > 1:
                    raise ExportRefused(
                        _mixing_node(stepped, x, row),
                        f"it mixes clients: what it answers to one series moves with the others in its batch ({kind} "
                        "series); a step serves many clients at once, so nothing may work over the batch axis",
                    )


def prove_stepping(stepped: Stepped, probe: Probe, scale: Array) -> float:
    """Stepping == the whole pass, and `sequence` in two chunks == the whole pass, at lengths 1, 2, 50, 500.

    And at 1,088 where calls outside the allow-list could look back further than 500 steps. Returns the largest
    difference in units of the tolerance. ExportRefused names the first node that is wrong.
    """
    largest = 0.0
    for length in (*LENGTHS, LONG) if stepped.walk.unlisted else LENGTHS:
        for kind, x in probe.each(2, length):
            whole = stepped.whole(tf.constant(x)).numpy()
            _check_finite(whole, kind, length)
            stepwise = stepped.stepwise(tf.constant(x), stepped.fresh(2))["y"].numpy()
            cut = length // 3
            first = stepped.sequence(tf.constant(x[:, :cut]), stepped.fresh(2)) if cut else None
            second = stepped.sequence(tf.constant(x[:, cut:]), stepped.fresh(2) if first is None else first["state"])
            chunked = second["y"].numpy()
            if first is not None:
                chunked = np.concatenate([first["y"].numpy(), chunked], axis=1)
            shown = slice(None) if stepped.timed else slice(-1, None)
            for how, y in (("one step at a time", stepwise), ("in two chunks", chunked)):
                off = worst(y[:, shown], whole, scale)
                if off > 1:
                    raise ExportRefused(
                        _wrong_node(stepped, x[:1]),
                        f"{how}, the model answers otherwise than in one pass over the whole series ({kind} series "
                        f"of length {length}, {off:,.0f} times the tolerance): something in it works over the time "
                        f"axis (a slice, a sum or a normalisation over time), or is random",
                    )
                largest = max(largest, off)
    return largest


def measure_fading(stepped: Stepped, probe: Probe, scale: Array, limit: float = 0.01) -> int | None:
    """C: two states brought over the same C observations answer within 1 % of scale from then on.

    The two are a fresh state and one that has seen another 512 observations, on 16 series (random, and real where
    there are). At least 64, so that a look at the last day or two of gates is possible. None if they still differ
    after 512.
    """
    needed = MIN_CONTEXT
    for _, x in probe.each(16, LONG):
        carried = stepped.sequence(tf.constant(x[:, :MAX_CONTEXT]), stepped.fresh(len(x)))["state"]
        rest = tf.constant(x[:, MAX_CONTEXT:])
        a = stepped.sequence(rest, carried)["y"].numpy()
        b = stepped.sequence(rest, stepped.fresh(len(x)))["y"].numpy()
        apart = (np.abs(a - b) / scale[:, None]).max(axis=(0, 2, 3)) > limit
        if apart.any():
            needed = max(needed, int(np.flatnonzero(apart)[-1]) + 2)
    return needed if needed <= MAX_CONTEXT else None


def _check_finite(y: Array, kind: str, length: int) -> None:
    if not np.isfinite(y).all():
        raise ExportRefused(
            "",
            f"the model answers values that are not finite ({kind} series of length {length}); if its inputs need "
            "another range, give real ones with --data",
        )


def _leaking_node(stepped: Stepped, x: Array, moved: Array, t: int) -> str:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    stepped.walk.whole(tf.constant(x), before)
    stepped.walk.whole(tf.constant(moved), after)
    for key in stepped.walk.node_keys():
        a, b = np.asarray(before[key]), np.asarray(after[key])
        timed = a.ndim >= 3 and a.shape[1] == x.shape[1]
        if not timed or not _close(a[:, : t + 1], b[:, : t + 1]):
            return key
    return ""


def _whole(stepped: Stepped, x: Array) -> Array:
    return np.asarray(stepped.whole(tf.constant(x)))


def _stepwise(stepped: Stepped, x: Array) -> Array:
    return np.asarray(stepped.stepwise(tf.constant(x), stepped.fresh(len(x)))["y"])


def _mixing_node(stepped: Stepped, x: Array, row: int) -> str:
    together: dict[str, Any] = {}
    alone: dict[str, Any] = {}
    stepped.walk.whole(tf.constant(x), together)
    stepped.walk.whole(tf.constant(x[row : row + 1]), alone)
    for key in stepped.walk.node_keys():
        a, b = np.asarray(together[key]), np.asarray(alone[key])
        if a.ndim and len(a) == len(x):
            a = a[row : row + 1]
        if a.shape != b.shape or not _close(a, b):
            return key
    return ""


def _wrong_node(stepped: Stepped, x: Array) -> str:
    whole: dict[str, Any] = {}
    stepped.walk.whole(tf.constant(x), whole)
    state, length = stepped.fresh(1), x.shape[1]
    for t in range(length):
        taps: dict[str, Any] = {}
        _, state = stepped.walk.step(tf.constant(x[:, t]), state, taps)
        for key in stepped.walk.node_keys():
            a, b = np.asarray(taps[key]), np.asarray(whole[key])
            if b.ndim >= 3 and b.shape[1] == length and a.ndim == b.ndim:
                b = b[:, t : t + 1]
            elif t < length - 1 and a.ndim < 3:
                continue  # it answers the last step alone, which has not come yet
            if a.shape != b.shape or not _close(a, b):
                return key
    return ""


def _close(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-5 * max(1e-6, float(np.abs(b).max(initial=0.0)))))
