"""What many clients ask at once, as columns: one observation each, the last prediction wanted and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core import order
from service.core.record import NO_KEY
from service.core.requests import PredictRequest
from service.core.types import ClientKey, FloatArray, GapPolicy

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Asked:
    """`len(keys)` requests of one observation each, of clients of one model; no two of one client.

    ``observations`` (n, F) float32, raw units. ``steps`` (n,) int64, 0 where a request names none; ``times`` (n,)
    float64 epoch seconds, NaN where it names none. A column that is None is so throughout.
    """

    keys: tuple[ClientKey, ...]
    observations: FloatArray
    steps: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    idempotency_keys: Sequence[str | None] | None = None
    gaps: Sequence[GapPolicy | None] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def request(self, place: int) -> PredictRequest:
        """One of them, as the predictor takes it."""
        step = 0 if self.steps is None else int(self.steps[place])
        return PredictRequest(
            self.observations[place : place + 1],
            self._times(place),
            step or None,
            None if self.idempotency_keys is None else self.idempotency_keys[place],
            None if self.gaps is None else self.gaps[place],
        )

    def some(self, places: Places) -> Asked:
        """Those at `places`, rising."""
        return self if len(places) == len(self) else self.in_order(places)

    def in_order(self, places: Places) -> Asked:
        """Those at `places`, in that order."""
        some = places.tolist()
        return Asked(
            tuple([self.keys[place] for place in some]),
            self.observations[places],
            None if self.steps is None else self.steps[places],
            None if self.times is None else self.times[places],
            None if self.idempotency_keys is None else [self.idempotency_keys[place] for place in some],
            None if self.gaps is None else [self.gaps[place] for place in some],
        )

    def digests(self) -> bytes:
        """Their digests (`order.digest_of`), 8 bytes each."""
        width, values = self.observations.shape[1], order.plain_bytes(self.observations)
        if self.times is None and self.gaps is None:
            return order.plain_digests(width, values)
        digests = []
        for place in range(len(self)):
            gap = None if self.gaps is None else self.gaps[place]
            row = values[place * 4 * width : (place + 1) * 4 * width]
            digests.append(order.content_digest(1, width, row, self._times(place), gap))
        return b"".join(digests)

    def key_hashes(self) -> bytes | None:
        """The hashes of their idempotency keys (`order.key_hash`), 8 bytes each; None if none has one."""
        if self.idempotency_keys is None or not any(self.idempotency_keys):
            return None
        return b"".join(NO_KEY if key is None else order.hash_of(key) for key in self.idempotency_keys)

    def _times(self, place: int) -> tuple[float, ...] | None:
        if self.times is None:
            return None
        time = float(self.times[place])
        return None if time != time else (time,)
