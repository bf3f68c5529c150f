"""Picture files of any kind that Pillow opens, as arrays of 8 bits."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from engine.errors import UserError, note

MAX_PIXELS = 100_000_000  # a larger picture is taken for a decompression bomb
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class BrokenPicture(Exception):
    """The file cannot be used; the message says why in a few words."""


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Return the picture files among the paths and below the folders among them, sorted within each folder."""
    suffixes = set(Image.registered_extensions())
    found = []
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            found += [p for p in files if p.suffix.lower() in suffixes]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist")
    return found


def open_picture(path: Path) -> Image.Image:
    """Open and fully decode a picture.

    Raises:
        BrokenPicture: The file is empty, truncated, too large, or no picture.
    """
    if path.stat().st_size == 0:
        raise BrokenPicture("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's word on large pictures; ours follows
            picture = Image.open(path)
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise BrokenPicture("too many pixels")
            picture.load()
    except BrokenPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenPicture("too many pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BrokenPicture("cannot be decoded") from error
    return picture


def is_grey(path: Path) -> bool:
    """Tell from its header alone whether a picture has no colours; a broken file has none."""
    try:
        with Image.open(path) as picture:
            return picture.mode in ("1", "L", "LA", "F") or picture.mode.startswith("I")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return True


def kinds_of(paths: list[Path]) -> list[str]:
    """Count pictures by format and mode, and tell by ``note`` which have another mode than most; headers are read."""
    modes: dict[str, list[str]] = {}
    formats: Counter[str] = Counter()
    for path in paths:
        try:
            with Image.open(path) as picture:
                modes.setdefault(picture.mode, []).append(str(path))
                formats[f"{picture.format} {picture.mode}"] += 1
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # told by whoever decodes it
    usual = max(modes, key=lambda mode: len(modes[mode]), default="")
    for mode in modes.keys() - {usual}:
        note(f"{len(modes[mode])} picture(s) are {mode}, most are {usual}; they are converted", modes[mode])
    return [f"{count:,} {kind}" for kind, count in formats.most_common()]


def unused_files(root: Path, used: Iterable[Path]) -> list[str]:
    """Return the files below a folder that are not used."""
    known = set(used)
    return sorted(str(path) for path in root.rglob("*") if path.is_file() and path not in known)


def to_array(picture: Image.Image, channels: int) -> np.ndarray:
    """Return the pixels as uint8 (H, W, channels).

    Grey pictures of more than 8 bits are stretched between their own extremes, since cameras and microscopes seldom
    use the whole range; what is transparent is put on white.

    Args:
        picture: Any mode.
        channels: 1 for grey, 3 for colour.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        low, high = float(values.min()), float(values.max())
        picture = Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    return pixels if channels == 3 else pixels[:, :, None]


def upright(picture: Image.Image) -> Image.Image:
    """Turn a photo the way its camera says that it was held."""
    return ImageOps.exif_transpose(picture)


def fit_within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return (width, height) scaled down, never up, so that no side exceeds ``max_side``."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Return uint8 pixels (H, W) or (H, W, channels) at another (width, height)."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    small = np.asarray(Image.fromarray(pixels.squeeze()).resize(size, resample))
    return small.reshape(*small.shape[:2], *pixels.shape[2:])


def fitted(picture: Image.Image, channels: int, max_side: int) -> np.ndarray:
    """Return a photo upright, scaled down so that no side exceeds ``max_side``, as uint8 (H, W, channels)."""
    picture = upright(picture)
    return resized(to_array(picture, channels), fit_within(picture.size, max_side), Image.Resampling.BOX)


def square(picture: Image.Image, channels: int, size: int) -> np.ndarray:
    """Return the middle of a photo, upright, as uint8 (size, size, channels)."""
    pixels = to_array(upright(picture), channels)
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    kind = Image.Resampling.BOX if side > size else Image.Resampling.BILINEAR
    return resized(pixels[top : top + side, left : left + side], (size, size), kind)


class UnlabelledPictures(Dataset[dict[str, Any]]):
    """Picture files, prepared as the training pictures were.

    A sample has ``image``, float (channels, H, W) in [0, 1], ``size``, the upright photo's own (height, width), and
    ``path``. Files that cannot be read are left out and named in ``skipped``.

    Args:
        paths: Picture files.
        prepare: From an opened picture to uint8 (H, W, channels).
    """

    def __init__(self, paths: list[Path], prepare: Callable[[Image.Image], np.ndarray]) -> None:
        self.prepare = prepare
        self.paths: list[Path] = []
        self.skipped: list[str] = []
        for path in paths:
            try:
                open_picture(path)
                self.paths.append(path)
            except BrokenPicture as error:
                self.skipped.append(f"{path} ({error})")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = open_picture(self.paths[index])
        height, width = upright(picture).size[::-1]
        image = torch.from_numpy(self.prepare(picture).copy()).permute(2, 0, 1) / 255
        return {"image": image, "size": (height, width), "path": str(self.paths[index])}
