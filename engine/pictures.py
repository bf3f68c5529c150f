"""Pictures for people: drawn by tasks, kept in the run folder, shown on the dashboard."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK, ACCENT, MUTED = "#1b1f24", "#2f6fde", "#b8c0cc"


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


def grid(rows: dict[str, Sequence[Image.Image]], captions: Sequence[str] = (), title: str = "") -> Image.Image:
    """Return pictures in rows, a sample a column.

    Args:
        rows: Label of the row to its pictures, as many in each.
        captions: A line below each column.
        title: A line above all.
    """
    count = max(len(pictures) for pictures in rows.values())
    figure = Figure(figsize=(1.5 * count + 0.9, 1.6 * len(rows) + 0.5), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for column, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if column < len(pictures):
                small = pictures[column].width < 100
                axis.imshow(pictures[column].convert("RGB"), interpolation="nearest" if small else "antialiased")
        line[0].set_ylabel(label, fontsize=9, color=INK)
    for axis, caption in zip(axes[-1], captions, strict=False):
        axis.set_xlabel(caption, fontsize=8, color=INK)
    return rendered(figure)


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


def curves(table: Path) -> Image.Image:
    """Return the curves of a ``metrics.csv``: training and validation of the same quantity in one panel."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [key for key in rows[0] if key not in ("epoch", "step") and not key.startswith("test/")]
    panels: dict[str, list[str]] = {}
    for key in keys:
        panels.setdefault(key.split("/")[-1], []).append(key)
    details = [name for name in panels if any(name.startswith(f"{other}_") for other in panels)]  # iou_cat beside iou
    panels = {name: keys for name, keys in panels.items() if name not in details}
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * lines), dpi=110, layout="constrained")
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
