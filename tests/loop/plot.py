"""The loop as a picture: the error of what was served, second by second, and what happened when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tests.loop.crowd import NOISE, Crowd

SMOOTH = 3  # seconds


def draw(crowd: Crowd, moments: dict[str, float], path: Path) -> None:
    """Write the plot to `path`; `moments` are seconds since the crowd's start, by what happened."""
    seconds = sorted(crowd.seconds)[1:-1]
    served = _smooth([crowd.seconds[s].squared for s in seconds], [crowd.seconds[s].scored for s in seconds])
    naive = _smooth([crowd.seconds[s].naive for s in seconds], [crowd.seconds[s].scored for s in seconds])
    figure = Figure(figsize=(8, 4.2), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    axes.plot(seconds, naive, color="#999999", linewidth=1.5, label="the last value")
    axes.plot(seconds, served, color="#0072B2", linewidth=2, label="served")
    axes.axhline(NOISE, color="#222222", linestyle=":", linewidth=1, label="the noise: nothing errs less")
    top = float(max(np.nanmax(naive), np.nanmax(served))) * 1.15
    for n, (what, at) in enumerate(moments.items()):
        axes.axvline(at, color="#D55E00", linewidth=1)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(at + 1, top * (0.97 - 0.06 * n), what, color="#D55E00", fontsize=8.5, va="top", bbox=box)
    axes.set(xlabel="seconds", ylabel="root of the mean squared error, all clients", ylim=(0, top), xlim=(0, None))
    axes.set_title("New dynamics, a retrained version, promoted by live proof", loc="left", color="#222222")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)  # no moment's line runs through it
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _smooth(sums: list[float], counts: list[int]) -> np.ndarray:
    """Roots of means over each second and some before it."""
    window = np.ones(SMOOTH)
    total, n = np.convolve(sums, window)[: len(sums)], np.convolve(counts, window)[: len(sums)]
    return np.sqrt(total / np.maximum(n, 1))
