"""Pictures for people: drawn by tasks, kept in the run folder, shown on the dashboard."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib import colormaps
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
