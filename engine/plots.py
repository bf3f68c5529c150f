"""Plots for people: bars, heat-maps and curves, drawn by Matplotlib without a screen."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from engine.pictures import ACCENT, INK, MUTED


def rendered(figure: Figure) -> Image.Image:
    """Draw a figure without a screen."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def bars(values: dict[str, float], title: str) -> Image.Image:
    """Return one horizontal bar for each named value in [0, 1]."""
    figure = Figure(figsize=(6, 0.28 * len(values) + 0.9), dpi=110, layout="constrained")
    axis = figure.subplots()
    drawn = axis.barh(list(values), list(values.values()), color=ACCENT)
    axis.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8, color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.08)
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10, color=INK)
    return rendered(figure)


def heatmap(matrix: np.ndarray, names: Sequence[str], title: str) -> Image.Image:
    """Return a confusion matrix: rows are the truth, columns what was said, colours the share of a row.

    Args:
        matrix: Counts (N, N).
        names: Names of rows and columns.
        title: Line above.
    """
    count = len(names)
    side = min(9.0, 2.2 + 0.42 * count)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= 40:
        axis.set_xticks(range(count), names, rotation=90, fontsize=8)
        axis.set_yticks(range(count), names, fontsize=8)
    if count <= 20:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.6 else INK
            axis.text(column, row, str(int(matrix[row, column])), ha="center", va="center", fontsize=7, color=colour)
    axis.set_xlabel("said", fontsize=8)
    axis.set_ylabel("truth", fontsize=8)
    axis.set_title(title, fontsize=10, color=INK)
    return rendered(figure)


def reliability(confidences: np.ndarray, right: np.ndarray, title: str) -> Image.Image:
    """Return how often answers of every confidence are right: on the diagonal a probability can be taken at its word.

    Args:
        confidences: Probability of each answer (N,).
        right: Whether it was right (N,).
        title: Line above.
    """
    edges = np.linspace(0, 1, 11)
    bins = np.clip(np.digitize(confidences, edges) - 1, 0, 9)
    counts = np.bincount(bins, minlength=10)
    shares = np.bincount(bins, right.astype(float), minlength=10) / np.maximum(counts, 1)
    figure = Figure(figsize=(4, 4), dpi=110, layout="constrained")
    axis, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
    axis.bar(edges[:-1] + 0.05, np.where(counts > 0, shares, 0), width=0.09, color=ACCENT)
    axis.set_ylabel("right", fontsize=8)
    below.bar(edges[:-1] + 0.05, counts, width=0.09, color=MUTED)
    below.set_ylabel("answers", fontsize=8)
    below.set_xlabel("confidence", fontsize=8)
    for part in (axis, below):
        part.tick_params(labelsize=8)
        part.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10, color=INK)
    return rendered(figure)


def decision_regions(
    classes: np.ndarray,
    extent: tuple[float, float, float, float],
    points: np.ndarray,
    labels: Sequence[int],
    names: Sequence[str],
    title: str,
) -> Image.Image:
    """Return a plane coloured by the class of every point, and samples in it.

    Args:
        classes: Class ids on a grid (H, W), lowest y first.
        extent: Smallest and largest x, smallest and largest y.
        points: Samples (N, 2).
        labels: Their classes.
        names: Names of the classes.
        title: Line above.
    """
    figure = Figure(figsize=(4.4, 4), dpi=110, layout="constrained")
    axis = figure.subplots()
    wheel = colormaps["tab10"]
    axis.imshow(wheel(classes % 10), extent=extent, origin="lower", alpha=0.35, aspect="auto")
    for c, name in enumerate(names):
        chosen = np.array(labels) == c
        axis.scatter(points[chosen, 0], points[chosen, 1], color=wheel(c % 10), edgecolor="white", s=60, label=name)
    if len(names) <= 10:
        axis.legend(fontsize=8, title="truth", title_fontsize=8)
    axis.tick_params(labelsize=8)
    axis.set_title(title, fontsize=10, color=INK)
    return rendered(figure)


def lines(series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Image.Image:
    """Return positive quantities over the steps on a logarithmic scale.

    Args:
        series: Name to pairs of step and value.
        title: Line above.
    """
    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    wheel = colormaps["viridis"]
    for i, (name, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color=wheel(i / max(1, len(series))), linewidth=1.2, label=name)
    axis.set_yscale("log")
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title(title, fontsize=10, color=INK)
    return rendered(figure)


def curves(table: Path) -> Image.Image:
    """Return the curves of a ``metrics.csv``: training and validation of the same quantity in one panel."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [key for key in rows[0] if key not in ("epoch", "step") and not key.startswith("test/")]
    panels: dict[str, list[str]] = {}
    for key in keys:
        name, _, group = key.partition("/pg")  # groups of parameters of one optimizer, which share its schedule
        if group in ("", "1"):
            panels.setdefault(name.split("/")[-1], []).append(key)
    details = [name for name in panels if any(name.startswith(f"{other}_") for other in panels)]  # iou_cat beside iou
    panels = {name: keys for name, keys in panels.items() if name not in details}
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    width, height = 3.6 * columns, 2.6 * lines  # inches
    figure = Figure(figsize=(width, height), dpi=110)
    # Room for ticks and titles in inches; to have it measured takes as long as to draw the figure.
    figure.subplots_adjust(0.6 / width, 0.45 / height, 1 - 0.15 / width, 1 - 0.3 / height, 0.75 / 2.85, 0.75 / 1.85)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, (name, shown) in zip(axes, panels.items(), strict=False):
        for key in shown:
            points = [(int(row["step"]), float(row[key])) for row in rows if row[key]]
            kind = key.split("/")[0]
            dots = "o" if len(points) < 40 else ""
            colour = {"train": MUTED, "val": ACCENT}.get(kind, INK)
            axis.plot(*zip(*points, strict=True), color=colour, marker=dots, markersize=3, label=kind)
        axis.set_title(name, fontsize=10, color=INK)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if len(shown) > 1:
            axis.legend(fontsize=8, frameon=False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return rendered(figure)
