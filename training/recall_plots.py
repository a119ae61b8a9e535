"""The pictures of the recall task: how far back each architecture reaches, and how an lstm's gates do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.gates import gate_values
from training.recall_task import BIN, FAR, LENGTH, Run, Series, evaluation

# colours that also differ for colour-blind eyes (Okabe & Ito)
COLOURS = {"lstm": "#0072B2", "gru": "#E69F00", "simple_rnn": "#009E73", "feed_forward": "#CC79A7"}
INK, FAINT, MARK = "#222222", "#999999", "#D55E00"
UNITS_SHOWN = 10


def draw_recall(runs: Sequence[Run], path: Path) -> None:
    """R2 against lag: a line per architecture (mean over seeds) in a band from its worst seed to its best."""
    figure = Figure(figsize=(9, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    middles = np.arange(0, LENGTH, BIN) + BIN / 2
    styles = dict(zip(COLOURS, ("-", "--", "-", "--"), strict=True))
    for name in dict.fromkeys(run.architecture for run in runs):
        of = np.stack([run.by_lag for run in runs if run.architecture == name])
        far = [run.far for run in runs if run.architecture == name]
        label = f"{name}: R² at lag ≥ {FAR}  {min(far):.3f} … {max(far):.3f}"
        colour = COLOURS[name]
        axes.fill_between(middles, of.min(axis=0), of.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(middles, of.mean(axis=0), styles[name], color=colour, linewidth=2.2, label=label)
    axes.axvspan(FAR, LENGTH, color="#000000", alpha=0.04, linewidth=0)
    axes.hlines([0.9, 0.5], FAR, LENGTH, colors=INK, linestyles=":", linewidth=1)
    axes.text(FAR + 2, 0.885, "lstm must stay above", va="top", fontsize=8.5, color=INK)
    axes.text(FAR + 2, 0.515, "simple_rnn and feed_forward must stay below", va="bottom", fontsize=8.5, color=INK)
    axes.set(
        xlim=(0, LENGTH), ylim=(-0.25, 1.05), xlabel="steps since the mark (lag)", ylabel="R² of the recalled value"
    )
    axes.set_title("How far back does a network remember one value?", loc="left", color=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(0.06, 0.56), frameon=False, fontsize=9)
    figure.savefig(path)


def example(series: Series) -> Series:
    """The first of `series` that has four to six marks and waits 100 steps and more for one of them."""
    marks, longest = series.x[..., 1].sum(axis=1), series.lag.max(axis=1)
    index = int(np.argmax((marks >= 4) & (marks <= 6) & (longest >= 100)))
    return type(series)(series.x[index], series.y[index], series.lag[index])


def gates_over(model: keras.Model, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The lstm's gates i, f, c, o at every step of one series ``x`` (T, 2), each (T, units)."""
    cell = model.get_layer("memory_1").cell
    states: Any = cell.get_initial_state(batch_size=1)
    seen = []
    for step in x[:, None, :]:
        now = keras.ops.convert_to_tensor(step)
        seen.append(np.asarray(gate_values(cell, now, states)[0])[0])
        _, states = cell(now, states)
    return dict(zip("ifco", np.split(np.stack(seen), 4, axis=1), strict=True))


def draw_gates(model: keras.Model, path: Path) -> None:
    """One series with the lstm's answer, and below it what its gates do: write at a mark, keep in between.

    Shown are the `UNITS_SHOWN` units whose forget gate closes most at a mark: those that hold the value.
    """
    series = example(evaluation())
    gates = gates_over(model, series.x)
    marks = np.flatnonzero(series.x[:, 1])
    answer = model.predict(series.x[None], verbose=0)[0, :, 0]
    apart = np.setdiff1d(np.arange(LENGTH), marks)
    closing = gates["f"][apart].mean(axis=0) - gates["f"][marks[1:]].mean(axis=0)
    shown = np.argsort(-closing)[:UNITS_SHOWN]
    written = np.abs(gates["i"] * gates["c"])
    figure = Figure(figsize=(9, 7.6), dpi=130, layout="constrained")
    top, *panels = figure.subplots(3, 1, sharex=True, height_ratios=(1.4, 1, 1))
    top.plot(series.x[:, 0], ".", color=FAINT, markersize=3.5, label="value without a mark: to be ignored")
    top.step(np.arange(LENGTH), series.y, where="post", color=INK, linewidth=1, label="what is asked for")
    top.step(
        np.arange(LENGTH),
        answer,
        where="post",
        color=COLOURS["lstm"],
        linewidth=2,
        alpha=0.8,
        label="the lstm's answer",
    )
    top.plot(marks, series.x[marks, 0], "o", color=MARK, markersize=7, label="value at a mark: to be kept")
    top.set(xlim=(-1, LENGTH), ylim=(-1.1, 1.1), ylabel="value")
    top.set_title("One series: the lstm answers with the value at the last mark", loc="left", color=INK, pad=28)
    top.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=4, frameon=False, fontsize=8, columnspacing=1.2)
    for axes, values, brightest, title in (
        (panels[0], written, 0.5, "Write: input gate × candidate. Strong at a mark, little in between"),
        (
            panels[1],
            gates["f"],
            1.0,
            "Keep: forget gate. Near 1 in between, low at a mark to make room for the new value",
        ),
    ):
        image = axes.imshow(
            values.T[shown], aspect="auto", cmap="viridis", vmin=0, vmax=brightest, interpolation="nearest"
        )
        axes.plot(marks, np.full(len(marks), -1.1), "v", color=MARK, clip_on=False, markersize=6)
        axes.set(ylabel=f"{UNITS_SHOWN} of {values.shape[1]} units", yticks=[])
        axes.set_title(title, loc="left", color=INK, pad=12)
        figure.colorbar(
            image, ax=axes, pad=0.01, ticks=[0, brightest / 2, brightest], extend="max" if brightest < 1 else None
        )
    panels[-1].set_xlabel("step (triangles: marks)")
    for axes in (top, *panels):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
