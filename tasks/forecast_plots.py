"""Forecasts beside truth and persistence, drawn."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from engine.pictures import ACCENT, INK, MUTED
from engine.plots import rendered
from tasks.forecast_metrics import changes, measured, per_step

ZOOM = 60  # forecasts shown from near


def draw_forecast(rows: dict[str, Tensor]) -> Image.Image:
    """Return truth, forecast and persistence over a part, and its end from near; of several steps the farthest."""
    horizon = rows["target"].shape[1]
    time = rows["time"][:, -1].numpy().astype("datetime64[s]")
    truth, forecast = rows["target"][:, -1], rows["forecast"][:, -1]
    figure = Figure(figsize=(10, 7), dpi=110, layout="constrained")
    for axis, first in zip(figure.subplots(2, 1), (0, max(0, len(time) - ZOOM)), strict=True):
        # Broad below narrow: forecast and persistence often coincide.
        axis.plot(time[first:], rows["last"][first:, 0], color=MUTED, linewidth=4, label="persistence")
        axis.plot(time[first:], truth[first:], color=INK, linewidth=1.2, label="truth")
        axis.plot(time[first:], forecast[first:], color=ACCENT, linewidth=1.2, label="forecast")
        tidy(axis)
    steps = "1 step" if horizon == 1 else f"{horizon} steps"
    axis.set_title(f"the last {min(ZOOM, len(time))} from near", fontsize=10, color=INK)
    figure.axes[0].set_title(f"forecasts {steps} ahead", fontsize=10, color=INK)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return rendered(figure)


def draw_errors(rows: dict[str, Tensor]) -> Image.Image:
    """Return the histogram of the errors over that of persistence's."""
    errors, moves = (rows["forecast"] - rows["target"]).flatten(), -changes(rows).flatten()
    reach = float(torch.cat([errors, moves]).abs().quantile(0.99))  # a crash of one day would hide the others
    edges = np.linspace(-reach, reach, 42).tolist()
    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    axis.hist(moves.numpy().clip(-reach, reach), edges, color=MUTED, label="persistence")
    axis.hist(errors.numpy().clip(-reach, reach), edges, color=ACCENT, histtype="step", linewidth=1.5, label="forecast")
    axis.set_xlabel("forecast less truth; the outermost bars hold all beyond", fontsize=8)
    axis.set_title(f"relative MAE {measured(rows)['relative_mae']:.3f}", fontsize=10, color=INK)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    return rendered(figure)


def draw_steps(rows: dict[str, Tensor]) -> Image.Image:
    """Return the relative error of every step."""
    values = list(per_step(rows).values())
    figure = Figure(figsize=(6, 3.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    drawn = axis.bar(range(1, len(values) + 1), values, color=ACCENT)
    axis.bar_label(drawn, fmt="%.3f", padding=3, fontsize=8, color=INK)
    axis.axhline(1, color=INK, linewidth=1, linestyle="--")
    axis.set_xlabel("steps ahead", fontsize=8)
    axis.set_title("mean absolute error relative to persistence (dashed)", fontsize=10, color=INK)
    tidy(axis)
    return rendered(figure)


def draw_window(past: np.ndarray, forecast: np.ndarray) -> Image.Image:
    """Return a past (T,) and its forecast (horizon,)."""
    figure = Figure(figsize=(7, 3.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    axis.plot(range(1 - len(past), 1), past, color=INK, linewidth=1.2, label="past")
    joined = [past[-1], *forecast]
    axis.plot(range(len(joined)), joined, color=ACCENT, marker="o", markersize=3, linewidth=1.2, label="forecast")
    axis.set_xlabel("steps from the last row", fontsize=8)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    return rendered(figure)


def tidy(axis: Any) -> None:
    """Small ticks, and no lines above and to the right."""
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
