"""The four curves as one figure, readable on a phone: two panels a row, ratios in the one colour, p99 in the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = (
    ("clients", "clients kept", True),
    ("workers", "workers", False),
    ("units", "units of each LSTM layer", True),
    ("replicas", "replicas over one Redis", False),
)
THROUGHPUT, TAIL = "#1b6ca8", "#c8553d"


def draw(seen: dict[str, Any], file: Path) -> None:
    """Writes the figure of what `seen` holds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 13, "axes.spines.top": False, "axes.grid": True, "grid.alpha": 0.25}):
        figure, axes = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
        for panel, (name, label, logarithmic) in zip(axes.flat, PANELS, strict=True):
            points = seen[name]
            at = [point["at"] for point in points]
            panel.plot(at, [point["ratio"] for point in points], "o-", color=THROUGHPUT, lw=2.5, ms=8)
            panel.set_ylim(0, 1.25 * max(point["ratio"] for point in points))
            panel.tick_params(axis="y", labelcolor=THROUGHPUT)
            other = panel.twinx()
            other.plot(at, [point["p99_ms"] for point in points], "s--", color=TAIL, lw=2, ms=7)
            other.set_ylim(0, 1.25 * max(point["p99_ms"] for point in points))
            other.tick_params(axis="y", labelcolor=TAIL)
            other.grid(visible=False)
            if logarithmic:
                panel.set_xscale("log")
            panel.set_xticks(at, [_short(each) for each in at])
            panel.minorticks_off()
            panel.margins(x=0.12)
            panel.set_xlabel(label)
        figure.suptitle("predicts/s of the empty endpoint's (blue, left)    p99 in ms (red, right)", fontsize=13)
        figure.savefig(file, dpi=110)
        plt.close(figure)


def _short(number: int) -> str:
    if number < 1000:
        return str(number)
    return f"{number / 1e6:g}M" if number >= 1e6 else f"{number / 1e3:g}k"
