"""The pictures of ``check``'s report: samples in grids, values in histograms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from engine.check_page import Report
from engine.check_parts import EXAMPLES, PARTS, Part, batches, class_names
from engine.fonts import font
from engine.pictures import ACCENT, INK, MUTED, grid, mask_picture, middle, picture_of
from engine.plots import rendered

MOST_ROWS = 12  # classes that are shown with pictures
MOST_PANELS = 24  # columns that are shown as histograms
MOST_BARS = 40  # classes that are shown as bars
WIDE, HIGH = 230, 150  # of a histogram, in pixels
BINS, BAR = 30, 7  # bars of a histogram, and pixels of each
DRAWN = ("image", "features", "series", "target")  # fields of which histograms are drawn
COLOURS = {"train": MUTED, "val": "#e0a526", "test": ACCENT}


def draw(report: Report, trainer: Trainer, data: Any, parts: dict[str, Part]) -> None:
    """Draw samples and the values of their fields."""
    train, names = parts["train"], class_names(data)
    if train.shown and "mask" in train.shown[0]:
        report.pictures["pictures and masks"] = masked_grid(train.shown[:EXAMPLES], len(names))
    elif train.shown and names and train.labels:
        report.pictures["pictures of every class"] = labelled_grid(train.shown, names)
    elif train.shown:
        report.pictures["pictures of every part"] = parts_grid({name: part.shown for name, part in parts.items()})
    if train.shown:
        seen = {"train": as_trained(trainer, data)}
        report.pictures["pictures as a training sees them, changed at random"] = parts_grid(seen)
    columns = columns_of(train, getattr(data, "feature_names", []))
    if columns:
        report.pictures["values of the training part"] = histograms(columns)
    if train.times:
        series = {name: moments(data, name) for name in PARTS}
        report.pictures["the target in time, part by part"] = in_time(series)


def columns_of(train: Part, names: list[str]) -> dict[str, np.ndarray]:
    """Return the numbers of which histograms are drawn, by their names."""
    columns: dict[str, np.ndarray] = {}
    for name, values in train.fields.items():
        if name not in DRAWN or not values.kept or values.dtype.startswith("int"):
            continue
        kept = np.concatenate(values.kept)
        if kept.ndim == 1:
            columns["pixels" if name == "image" else name] = kept
        else:
            titles = names if len(names) == kept.shape[1] else [f"{name} {i}" for i in range(kept.shape[1])]
            columns |= {title: kept[:, i] for i, title in enumerate(titles)}
    if train.lengths:
        columns["characters of a text"] = np.array(train.lengths)
    return columns


def moments(data: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return when, in seconds since 1970, and how large the target is in a part."""
    found = [(batch["time"][:, 0], batch["target"][:, 0]) for _, batch in batches(data, part)]
    times, values = (torch.cat(columns).numpy() for columns in zip(*found, strict=True))
    return times, values


def as_trained(trainer: Trainer, data: Any) -> list[dict[str, Any]]:
    """Return the first training pictures with their random changes."""
    batch = next(iter(data.train_dataloader()))
    data.trainer, before = trainer, trainer.training
    trainer.training = True
    image = data.on_after_batch_transfer(batch, 0)["image"]
    trainer.training = before
    return [{"image": picture} for picture in image[:EXAMPLES]]


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
