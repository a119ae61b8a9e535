"""What training minimises, in units of the change that the network predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from training.job import Job


class Loss:
    """The mean over steps and the weighted sum over targets of the point forecast's loss and the quantiles' losses.

    `squared`: (change - h)^2. `qlike` (Patton 2011), for z = ln(volatility): v / f - ln(v / f) - 1 with realised
    variance v and forecast variance f, whose logarithms differ by 2 unit (change - h). Quantiles: pinball loss (Koenker
    and Bassett 1978), averaged over the levels.
    """

    def __init__(self, job: Job) -> None:
        weights = np.asarray([target.weight for target in job.targets], np.float32)
        self._weights = weights / weights.sum()
        self._levels = np.asarray(job.quantiles, np.float32)
        self._qlike = np.asarray([target.loss == "qlike" for target in job.targets])

    def __call__(self, normal: Any, change: Any, unit: Any, counts: Any) -> Any:
        """``normal`` (B, T, K, 1 + Q) and ``change`` (B, T, K), both in units of ``unit`` (B, T, K) -> a scalar.

        The mean is over the steps whose ``counts`` (B, T) are 1.
        """
        miss = change - normal[..., 0]
        point = ops.square(miss)
        if self._qlike.any():
            ratio = ops.clip(2.0 * unit * miss, -20.0, 20.0)  # of logarithms: an untrained network must not overflow
            point = ops.where(self._qlike, ops.exp(ratio) - ratio - 1.0, point)
        if len(self._levels):
            short = change[..., None] - normal[..., 1:]
            pinball = ops.maximum(self._levels * short, (self._levels - 1.0) * short)
            point = point + ops.mean(pinball, axis=-1)
        each = ops.sum(point * self._weights, axis=-1)
        return ops.sum(each * counts) / ops.maximum(ops.sum(counts), 1.0)
