"""The report's plots, as matplotlib figures; every one can be drawn on a light or a dark page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib.dates
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.manifest import GateLayer, Residuals
from training.evaluate import Track
from training.job import Job
from training.references import title

Array = NDArray[Any]
WIDTH, DPI = 8.6, 110
GATE_NAMES = {"i": "input", "f": "forget", "c": "candidate", "o": "output", "z": "update", "r": "reset", "h": "hidden"}


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one page."""

    page: str
    ink: str
    faint: str
    model: str
    others: tuple[str, ...]
    truth: str


LIGHT = Theme("#ffffff", "#22303c", "#d9dee3", "#0b6bcb", ("#8a6d1a", "#b0448f", "#3c8d5a", "#8894a0"), "#22303c")
DARK = Theme("#161b22", "#dde5ec", "#313a44", "#58a6ff", ("#e3b341", "#e08bc6", "#7ad19b", "#8894a0"), "#f0f4f8")


def png(figure: Figure, theme: Theme) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=theme.page, metadata={"Software": None})
    return buffer.getvalue()


def forecast(job: Job, tracks: Sequence[Track], residuals: Residuals, steps: int, theme: Theme) -> Figure:
    """One-step forecasts with their interval over the last `steps` observations: a panel per series, or per target."""
    many = len(tracks) > 1
    panels = [(t, 0) for t in tracks[:3]] if many else [(tracks[0], k) for k in range(min(3, len(job.targets)))]
    figure, axes = _panels(len(panels), 2.1, theme)
    level = residuals.levels[-1] - residuals.levels[0]
    for axis, (track, k) in zip(axes, panels, strict=True):
        target, column = job.targets[k], job.observed[k]
        n = min(steps, len(track.series) - track.judged)
        when = _dates(track.series.times[-n:])
        low, high = track.interval(k, residuals)
        axis.fill_between(when, low[-n:], high[-n:], color=theme.model, alpha=0.22, lw=0, label=f"{level:.0%} interval")
        axis.plot(when, track.predicted(k)[-n:], color=theme.model, lw=1.5, label="forecast, one step ahead")
        axis.plot(when, track.observed(column)[-n:], color=theme.truth, lw=0, marker=".", ms=3.2, label="observed")
        unit = job.features[column].unit
        axis.set_ylabel(f"{target.name.replace('_', ' ')}\n{unit}" if not many else unit)
        if many:
            axis.set_title(track.series.id, loc="left", fontsize=10, color=theme.ink)
        axis.set_xlim(when[0], when[-1])
        _date_axis(axis, last=axis is axes[-1])
    _legend_above(figure, axes[0], theme, 3)
    return figure


def by_horizon(job: Job, scores: Mapping[str, Any], theme: Theme) -> Figure | None:
    """Error by how far ahead, beside the baselines; None for a model that looks one step ahead only."""
    found = [(name, t) for name, t in scores["targets"].items() if len(t["by_horizon"]["errors"]["model"]) > 1][:3]
    if not found:
        return None
    figure, axes = _panels(1, 3.0, theme, columns=len(found))
    for axis, (name, target) in zip(axes, found, strict=True):
        colours = iter(theme.others)
        for who, errors in target["by_horizon"]["errors"].items():
            x = np.arange(1, len(errors) + 1)
            style = (
                {"color": theme.model, "lw": 2.4, "zorder": 5}
                if who == "model"
                else {"color": next(colours), "lw": 1.3}
            )
            axis.plot(x, errors, label=title(who), **style)
        axis.set_title(name.replace("_", " "), loc="left", fontsize=10, color=theme.ink)
        axis.set_ylabel("QLIKE" if target["loss"] == "qlike" else f"RMSE, {target['unit']}")
        axis.set_xlabel("steps ahead")
        axis.set_ylim(bottom=0)
        axis.xaxis.get_major_locator().set_params(integer=True)
    _legend_above(figure, axes[0], theme, 5)
    return figure


def residuals(job: Job, tracks: Sequence[Track], naive: Sequence[Mapping[str, Array]], theme: Theme) -> Figure:
    """How large the errors are, and how often the truth lies below each quantile (on the line: as promised)."""
    levels = job.quantiles
    figure, axes = _panels(1, 3.0, theme, columns=2 if len(levels) >= 2 else 1)
    column = job.observed[0]
    misses = np.concatenate([t.observed(column) - t.predicted(0) for t in tracks])
    last = np.concatenate(
        [t.observed(column) - each["last_value"] for t, each in zip(tracks, naive, strict=True) if "last_value" in each]
    )
    reach = float(np.quantile(np.abs(np.concatenate([misses, last])), 0.99)) or 1.0
    bins = np.linspace(-reach, reach, 42)
    axes[0].hist(np.clip(misses, -reach, reach), bins, color=theme.model, alpha=0.55, label="this model")
    axes[0].hist(np.clip(last, -reach, reach), bins, color=theme.others[0], lw=1.3, histtype="step", label="last value")
    axes[0].set_xlabel(f"observed - predicted, {job.features[column].unit}")
    axes[0].set_yticks([])
    axes[0].legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
    if len(levels) >= 2:
        below = np.zeros(len(levels))
        for t in tracks:
            y = t.hindcast.next[t.judged - t.learnt :, 0, 1:]
            below += (t.observed(column)[:, None] <= y).sum(axis=0)
        share = below / len(misses)
        axes[1].plot([0, 1], [0, 1], color=theme.faint, lw=1.2)
        axes[1].plot(levels, share, color=theme.model, marker="o", lw=1.6, ms=5)
        axes[1].set(xlim=(0, 1), ylim=(0, 1), xlabel="quantile level", ylabel="truths below it")
        axes[1].set_aspect("equal")
    return figure


def training_curve(history: Sequence[Any], best: int, theme: Theme) -> Figure:
    """Loss by epoch on the training and the validation part."""
    figure, axes = _panels(1, 2.7, theme)
    x = [epoch.number for epoch in history]
    axes[0].plot(x, [epoch.loss for epoch in history], color=theme.others[0], lw=1.5, label="training")
    axes[0].plot(x, [epoch.validation for epoch in history], color=theme.model, lw=2.0, label="validation")
    chosen = next(epoch for epoch in history if epoch.number == best)
    axes[0].plot([best], [chosen.validation], "o", color=theme.model, ms=7, label=f"kept: epoch {best}")
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
    return figure


def gates(job: Job, track: Track, layer: GateLayer, activations: Array, theme: Theme) -> Figure:
    """One recurrent layer's gates over the last observations: a row of pixels per unit, under the series itself.

    ``activations`` (n, len(names) * units), of the last n observations.
    """
    n = len(activations)
    shown = [i for i, name in enumerate(layer.names) if name != "c"]
    figure, axes = _panels(1 + len(shown), 1.35, theme)
    column = job.observed[0]
    when = matplotlib.dates.date2num(_dates(track.series.times[-n:]))  # type: ignore[no-untyped-call]
    axes[0].plot(when, track.series.values[-n:, column], color=theme.truth, lw=1.2)
    axes[0].set_ylabel(job.targets[0].name.replace("_", " "))
    cube = activations.reshape(n, len(layer.names), layer.units)
    order = np.argsort(cube[:, layer.names.index("f") if "f" in layer.names else 0].mean(axis=0))
    image = None
    for axis, index in zip(axes[1:], shown, strict=True):
        low = -1 if layer.names[index] == "h" else 0
        image = axis.imshow(
            cube[:, index, order].T, aspect="auto", vmin=low, vmax=1, cmap="viridis", interpolation="nearest",
            extent=(when[0], when[-1], 0, layer.units),
        )  # fmt: skip
        axis.set_ylabel(GATE_NAMES[layer.names[index]])
        axis.set_yticks([])
        axis.grid(False)
    for axis in axes:
        axis.set_xlim(when[0], when[-1])
        axis.xaxis_date()
        _date_axis(axis, last=axis is axes[-1])
    if image is not None:
        bar = figure.colorbar(image, ax=list(axes), fraction=0.018, pad=0.01)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=theme.ink, labelsize=8)
    return figure


def _panels(rows: int, height: float, theme: Theme, columns: int = 1) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(WIDTH, height * rows + 0.7), layout="constrained", facecolor=theme.page)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_facecolor(theme.page)
        axis.grid(True, color=theme.faint, lw=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(colors=theme.ink, labelsize=9, length=0)
        axis.xaxis.label.set_color(theme.ink)
        axis.yaxis.label.set_color(theme.ink)
        axis.xaxis.label.set_size(9)
        axis.yaxis.label.set_size(9)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, list(grid.flat)


def _legend_above(figure: Figure, axis: Any, theme: Theme, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=theme.ink
    )


def _dates(times: Array) -> list[datetime]:
    return [datetime.fromtimestamp(float(t), UTC) for t in times]


def _date_axis(axis: Any, *, last: bool) -> None:
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    formatter = matplotlib.dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_formatter(formatter)
    if not last:
        axis.tick_params(labelbottom=False)
        axis.xaxis.get_offset_text().set_visible(False)
