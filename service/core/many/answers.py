"""What many clients are answered at once, as columns: all of them carried over, by one version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core.many.asked import Asked, Places
from service.core.requests import Answer, Marks, Previous, StateInfo
from service.core.types import FloatArray, ModelSpec


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to `asked`; each is what `Predictor.predict` would have answered.

    ``steps`` and ``behind`` (n,) uint64, ``begun`` (n,) float64. ``y`` (n, K, W), ``interval`` (n, K, 2) or None,
    ``predicted``, ``observed`` and ``anomaly`` (n, K) float32: see Answer and Previous; anomaly is NaN where too little
    is known. ``marks`` (n, K * MARKS) float64: see Marks.
    """

    spec: ModelSpec
    asked: Asked
    steps: NDArray[np.uint64]
    behind: NDArray[np.uint64]
    begun: NDArray[np.float64]
    y: FloatArray
    interval: FloatArray | None
    predicted: FloatArray
    observed: FloatArray
    anomaly: FloatArray
    marks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def answer(self, place: int) -> Answer:
        """One of them."""
        anomaly, spec = self.anomaly[place], self.spec
        return Answer(
            spec=spec,
            version=spec.version,
            client=self.asked.keys[place].client,
            step=int(self.steps[place]),
            y=self.y[place : place + 1],
            interval=None if self.interval is None else self.interval[place : place + 1],
            ahead=None,
            previous=Previous(
                self.predicted[place], self.observed[place], None if np.isnan(anomaly).all() else anomaly
            ),
            state=StateInfo("carried", None, int(self.behind[place])),
            level=spec.level,
            begun=float(self.begun[place]),
            marks=Marks(tuple(self.marks[place].tolist())),
        )

    def some(self, places: Places) -> Answers:
        """Those at `places`, rising."""
        if len(places) == len(self):
            return self
        interval = None if self.interval is None else self.interval[places]
        return Answers(
            self.spec, self.asked.some(places), self.steps[places], self.behind[places], self.begun[places],
            self.y[places], interval, self.predicted[places], self.observed[places], self.anomaly[places],
            self.marks[places],
        )  # fmt: skip
