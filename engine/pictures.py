"""Pictures for people: drawn by tasks, kept in the run folder, shown on the dashboard."""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from engine.fonts import font

INK, ACCENT, MUTED = "#1b1f24", "#2f6fde", "#b8c0cc"
CELL, GAP = 150, 8  # side of a sample's picture and the space between two, in pixels


def show(task: LightningModule, name: str, picture: Image.Image) -> None:
    """Write a picture to ``pictures/`` of the run folder and to the run's dashboards.

    Args:
        task: The task whose trainer knows the folder and the loggers.
        name: File name without the ending, such as ``val_samples``.
        picture: The picture.
    """
    if not task.trainer.is_global_zero or task.trainer.sanity_checking:
        return
    folder = Path(task.trainer.default_root_dir) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{name}.png")
    for logger in task.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"pictures/{name}", [picture], step=task.global_step)
        elif isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(f"pictures/{name}", pixels, task.global_step, dataformats="HWC")


@cache
def palette(num_classes: int) -> np.ndarray:
    """Return a colour for every class id, uint8 (256, 3): black for 0, then distinct ones; white for 255 (ignored)."""
    colours = np.zeros((256, 3), np.uint8)
    wheel = colormaps["tab10" if num_classes <= 11 else "tab20"]
    for index in range(1, 255):
        colours[index] = np.multiply(wheel((index - 1) % wheel.N)[:3], 255).round()
    colours[255] = 255
    return colours


def mask_picture(mask: np.ndarray, num_classes: int) -> Image.Image:
    """Return class ids (H, W) as a palette picture: its pixels still are the ids, its colours can be told apart."""
    picture = Image.fromarray(mask.astype(np.uint8), mode="P")
    picture.putpalette(palette(num_classes).ravel().tolist())
    return picture


def overlay(image: np.ndarray, mask: np.ndarray, num_classes: int) -> Image.Image:
    """Return a picture uint8 (H, W, 1 or 3) with the classes of a mask (H, W) washed over all but the background."""
    rgb = np.broadcast_to(image, (*mask.shape, 3))
    wash = np.where((mask > 0)[:, :, None], 0.5 * rgb + 0.5 * palette(num_classes)[mask], rgb)
    return Image.fromarray(wash.round().astype(np.uint8))


def rendered(figure: Figure) -> Image.Image:
    """Draw a figure without a screen."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def grid(rows: Mapping[str, Sequence[Image.Image]], captions: Sequence[str] = ()) -> Image.Image:
    """Return pictures in rows, a sample a column; drawn without Matplotlib, which takes seconds for so many axes.

    Args:
        rows: Label of the row to its pictures, as many in each.
        captions: A line or more below each column.
    """
    count = max(len(pictures) for pictures in rows.values())
    shapes = {picture.size for pictures in rows.values() for picture in pictures}
    below = 8 + 16 * max((caption.count("\n") + 1 for caption in captions), default=0) if captions else 0
    margin, height = 90, max(CELL * h // max(w, h) for w, h in shapes)
    sheet = Image.new("RGB", (margin + count * (CELL + GAP), len(rows) * (height + GAP) + below), "white")
    draw, letters = ImageDraw.Draw(sheet), font(13)
    for line, (label, pictures) in enumerate(rows.items()):
        top = line * (height + GAP)
        draw.text((margin - 12, top + height / 2), label, INK, letters, anchor="rm")
        for column, picture in enumerate(pictures):
            scale = CELL / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            kind = Image.Resampling.NEAREST if scale > 1 or picture.mode == "P" else Image.Resampling.BOX
            left = margin + column * (CELL + GAP)
            fitted = picture.resize(size, kind).convert("RGB")
            sheet.paste(fitted, (left + (CELL - size[0]) // 2, top + (height - size[1]) // 2))
    for column, caption in enumerate(captions):
        middle = margin + column * (CELL + GAP) + CELL / 2
        draw.text((middle, sheet.height - below / 2 - GAP / 2), caption, INK, letters, anchor="mm")
    return sheet


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


def picture_of(image: Tensor) -> Image.Image:
    """Return a tensor (1 or 3, H, W) in [0, 1] as a picture."""
    pixels = (image.clamp(0, 1).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def middle(pictures: Tensor, side: int) -> Tensor:
    """Return the middle of pictures (..., H, W), at most ``side`` high and wide. Whole photos hide their pixels."""
    top, left = (max(0, (length - side) // 2) for length in pictures.shape[-2:])
    return pictures[..., top : top + side, left : left + side]


def picture_of_bytes(pixels: Tensor) -> Image.Image:
    """Return bytes (H, W, 1 or 3) as a grey or a coloured picture."""
    return Image.fromarray(pixels.numpy().squeeze(2) if pixels.shape[2] == 1 else pixels.numpy())


def with_alpha(picture: Image.Image, alpha: Tensor | None) -> Image.Image:
    """Return a picture as transparent as the one it was made from, given the latter's alpha (1, 1, H, W) in [0, 1]."""
    if alpha is not None:
        layer = Image.fromarray((alpha[0, 0] * 255).round().byte().cpu().numpy())
        picture.putalpha(layer.resize(picture.size, Image.Resampling.BICUBIC))
    return picture


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
