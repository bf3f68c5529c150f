"""The pictures of ``check``'s report: samples in grids, values in histograms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from engine.fonts import font
from engine.pictures import ACCENT, INK, MUTED, grid, mask_picture, middle, picture_of, rendered

MOST_ROWS = 12  # classes that are shown with pictures
MOST_PANELS = 24  # columns that are shown as histograms
MOST_BARS = 40  # classes that are shown as bars
WIDE, HIGH = 230, 150  # of a histogram, in pixels
BINS, BAR = 30, 7  # bars of a histogram, and pixels of each
COLOURS = {"train": MUTED, "val": "#e0a526", "test": ACCENT}


def shown(image: Tensor) -> Image.Image:
    """Return a picture (C, H, W) in [0, 1], of a large one the middle."""
    return picture_of(middle(image.float(), 256))


def labelled_grid(samples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Image.Image:
    """Return pictures, a row for every class."""
    rows = {
        f"{name[:12]}": [shown(sample["image"]) for sample in samples if sample["label"] == label]
        for label, name in enumerate(names[:MOST_ROWS])
    }
    return grid({name: pictures for name, pictures in rows.items() if pictures})


def parts_grid(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Image.Image:
    """Return pictures, a row for every part."""
    rows = {name: [shown(sample["image"]) for sample in samples[:8]] for name, samples in parts.items()}
    return grid({name: pictures for name, pictures in rows.items() if pictures})


def masked_grid(samples: Sequence[Mapping[str, Any]], num_classes: int) -> Image.Image:
    """Return pictures above their masks."""
    masks = [mask_picture(middle(sample["mask"], 256).numpy(), num_classes) for sample in samples]
    return grid({"picture": [shown(sample["image"]) for sample in samples], "mask": masks})


def pairs_grid(pairs: Sequence[tuple[Tensor, Tensor]]) -> Image.Image:
    """Return held-out pictures above the training pictures that they resemble."""
    return grid({"held out": [shown(one) for one, _ in pairs], "training": [shown(other) for _, other in pairs]})


def class_counts(counts: Mapping[str, int]) -> Image.Image:
    """Return a bar for every class, as long as it has samples or pixels."""
    kept = dict(list(counts.items())[:MOST_BARS])
    figure = Figure(figsize=(6, 0.28 * len(kept) + 0.9), dpi=110, layout="constrained")
    axis = figure.subplots()
    drawn = axis.barh(range(len(kept)), list(kept.values()), color=ACCENT)
    axis.bar_label(drawn, [f"{count:,}" for count in kept.values()], padding=3, fontsize=8, color=INK)
    axis.set_yticks(range(len(kept)), [name[:30] for name in kept])
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.set_xticks([])
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    return rendered(figure)


def histograms(columns: Mapping[str, np.ndarray]) -> Image.Image:
    """Return a histogram of every column of numbers; drawn without Matplotlib, which takes seconds for so many axes."""
    kept = dict(list(columns.items())[:MOST_PANELS])
    across, letters = min(4, len(kept)), font(12)
    sheet = Image.new("RGB", (across * WIDE, -(-len(kept) // across) * HIGH), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, values) in enumerate(kept.items()):
        left, top = number % across * WIDE, number // across * HIGH
        counts, edges = np.histogram(values[np.isfinite(values)], bins=BINS)
        heights = counts / max(1, counts.max()) * (HIGH - 50)
        for place, height in enumerate(heights):
            bar = left + 10 + place * BAR
            if height:
                draw.rectangle((bar, top + HIGH - 24 - max(1, round(height)), bar + BAR - 2, top + HIGH - 24), ACCENT)
        draw.text((left + WIDE / 2, top + 12), name[:30], INK, letters, anchor="mm")
        draw.line((left + 10, top + HIGH - 23, left + 10 + BINS * BAR, top + HIGH - 23), MUTED)
        draw.text((left + 10, top + HIGH - 12), f"{edges[0]:.4g}", INK, letters, anchor="lm")
        draw.text((left + 10 + BINS * BAR, top + HIGH - 12), f"{edges[-1]:.4g}", INK, letters, anchor="rm")
    return sheet


def in_time(parts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Image.Image:
    """Return a series over time, each part in its colour.

    Args:
        parts: Of every part moments, in seconds since 1970, and values.
    """
    figure = Figure(figsize=(9, 2.8), dpi=110, layout="constrained")
    axis = figure.subplots()
    for name, (times, values) in parts.items():
        axis.plot(times.astype("datetime64[s]"), values, color=COLOURS[name], linewidth=1, label=name)
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    return rendered(figure)
