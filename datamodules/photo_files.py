"""Photograph files: the user's, to be restored, and whole folders, decoded once."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from datamodules.picture_files import (
    BrokenPicture,
    UnlabelledPictures,
    fitted,
    is_grey,
    open_picture,
    to_array,
    upright,
)
from datamodules.picture_store import Sample, without_faults, write_store
from engine.cache import cached

FAINT = 8  # channels of a pixel that differ by no more, of 255, make no colour

File = tuple[str, Path]  # part, photo


class PhotosToRestore(UnlabelledPictures):
    """The user's photos at their own size, upright.

    A sample has ``image``, float (channels, H, W) in [0, 1], ``path``, and of a transparent picture ``alpha``, float
    (1, H, W) in [0, 1].

    Args:
        paths: Picture files.
        channels: 1 for grey, 3 for colour.
    """

    def __init__(self, paths: list[Path], channels: int) -> None:
        super().__init__(paths, partial(opaque, channels=channels))

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        picture = open_picture(self.paths[index])
        if picture.has_transparency_data:
            alpha = np.asarray(upright(picture).convert("RGBA").getchannel("A"))
            sample["alpha"] = torch.from_numpy(alpha.copy())[None] / 255
        return sample


def opaque(picture: Image.Image, channels: int) -> np.ndarray:
    """Return a photo upright, its transparency set aside, as uint8 (H, W, channels)."""
    picture = upright(picture)
    if picture.mode.startswith("I;16"):  # a photo's 16 bits have a white of their own
        picture = Image.fromarray((np.asarray(picture, np.float32) / 257).round().astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA").convert("RGB")
    return to_array(picture, channels)


def decoded_photos(files: list[File], grey: bool, max_side: int, root: Path) -> Path:
    """Decode photos into a cached folder for ``PictureStore``.

    Args:
        files: Part and path of every photo.
        grey: Whether colours are left out.
        max_side: Longer sides are scaled down to this many pixels.
        root: Folder that the names in messages are relative to.

    Raises:
        UserError: Too many files are broken.
    """

    def build(folder: Path) -> None:
        skipped: list[str] = []
        channels = 1 if grey or not any(is_colourful(path) for _, path in files) else 3
        write_store(folder, channels, decode(files, channels, max_side, root, skipped), skipped)
        without_faults(folder, len(files), root)  # before a cache remembers them

    stats = [(part, str(path), path.stat()) for part, path in files]
    listing = [(part, path, stat.st_size, stat.st_mtime_ns) for part, path, stat in stats]
    key = {"format": 2, "grey": grey, "max_side": max_side, "files": listing}
    return without_faults(cached("photos", key, build), len(files), root)


def decode(files: list[File], channels: int, max_side: int, root: Path, skipped: list[str]) -> Iterator[Sample]:
    """Yield the photos that can be read and add the names of the others to ``skipped``."""
    for part, path in track(files, "reading pictures", transient=True, disable=len(files) < 100):
        name = str(path.relative_to(root))
        try:
            yield part, name, fitted(open_picture(path), channels, max_side), None
        except BrokenPicture as error:
            skipped.append(f"{name} ({error})")


def is_colourful(path: Path) -> bool:
    """Tell whether a picture has colours, which one saved in colour need not; a broken file has none."""
    try:
        if is_grey(path):
            return False
        pixels = np.asarray(open_picture(path).convert("RGB").resize((64, 64)), np.int16)
    except BrokenPicture:
        return False
    return bool((np.ptp(pixels, axis=2) > FAINT).any())
