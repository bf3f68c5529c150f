"""Pictures with masks, decoded once into memory-mapped arrays of bytes, from which all batches come."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from datamodules.picture_files import (
    BrokenPicture,
    find_pictures,
    fit_within,
    is_grey,
    open_picture,
    resized,
    to_array,
    upright,
)
from engine.cache import cached
from engine.errors import UserError, some

PARTS = ("train", "val", "test")
MAX_BROKEN = 0.05  # share of unreadable files above which a data set is refused

Pair = tuple[str, Path, Path]  # part, picture, mask
Sample = tuple[str, str, np.ndarray, np.ndarray]  # part, name, picture (H, W, channels) and mask (H, W), both uint8


class PictureStore:
    """Pictures and masks of any sizes, one behind the other, with what is known of each.

    Args:
        folder: What ``write_store`` has filled.
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.channels: int = index["channels"]
        self.names: list[str] = index["names"]
        self.parts: list[str] = index["parts"]
        self.skipped: list[str] = index["skipped"]
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in index["sizes"]]
        self.counts = np.load(folder / "counts.npy")  # (N, 256): pixels of every id in every mask
        self.starts = np.cumsum([0, *(height * width for height, width in self.sizes)])
        self.pixels = np.memmap(folder / "pixels.bin", np.uint8, "r").reshape(-1, self.channels)
        self.masks = np.memmap(folder / "masks.bin", np.uint8, "r")

    def read(self, index: int, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a window of a picture (height, width, channels) and of its mask (height, width)."""
        window = np.s_[top : top + height, left : left + width]
        area, shape = slice(self.starts[index], self.starts[index + 1]), self.sizes[index]
        return self.pixels[area].reshape(*shape, -1)[window], self.masks[area].reshape(shape)[window]


def write_store(folder: Path, channels: int, samples: Iterator[Sample], skipped: list[str]) -> None:
    """Fill an empty folder for ``PictureStore``.

    Args:
        folder: Where to write.
        channels: Channels of every picture.
        samples: The pictures, consumed one by one.
        skipped: What ``samples`` has left out, complete when it ends.
    """
    names, parts, sizes, counts, hashes = [], [], [], [], []
    with (folder / "pixels.bin").open("wb") as pixels, (folder / "masks.bin").open("wb") as masks:
        for part, name, picture, mask in samples:
            pixels.write(picture.tobytes())
            masks.write(mask.tobytes())
            names.append(name)
            parts.append(part)
            sizes.append(mask.shape)
            counts.append(np.bincount(mask.ravel(), minlength=256))
            hashes.append(hashlib.sha256(picture.tobytes()).hexdigest())
    parts = split_by_content(parts, hashes, np.array(counts) > 0)
    np.save(folder / "counts.npy", np.array(counts))
    index = {"channels": channels, "names": names, "parts": parts, "sizes": sizes, "skipped": skipped}
    (folder / "index.json").write_text(json.dumps(index))


def split_by_content(parts: list[str], hashes: list[str], present: np.ndarray) -> list[str]:
    """Split missing val and test parts off the training part, a tenth each, identical pictures on one side.

    A picture with a class that no other training picture has stays in the training part.

    Args:
        parts: Part of every sample.
        hashes: Hash of every sample's picture.
        present: Whether a sample has a class or an id, (N, ids).

    Returns:
        The new part of every sample.
    """
    new = list(parts)
    for missing in [part for part in PARTS if part not in parts]:
        groups: dict[str, list[int]] = {}
        for i in sorted((i for i, part in enumerate(new) if part == "train"), key=lambda i: hashes[i]):
            groups.setdefault(hashes[i], []).append(i)
        left = sum((present[group].sum(0) for group in groups.values()), np.zeros(present.shape[1], int))
        moved = 0
        for group in groups.values():
            gone = present[group].sum(0)
            if moved < max(1, round(len(parts) / 10)) and not ((gone > 0) & (gone == left)).any():
                for i in group:
                    new[i] = missing
                left, moved = left - gone, moved + len(group)
    return new


def find_pairs(root: Path) -> list[Pair]:
    """List part, picture and mask of a folder in one of the two layouts.

    Raises:
        UserError: The folder is missing or empty, or a picture or a mask stands alone.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    folders = {part: root / part for part in PARTS if (root / part).is_dir()} or {"train": root}
    if "train" not in folders:
        raise UserError(f"{root} has no folder 'train' beside {some(sorted(folders))}")
    pairs: list[Pair] = []
    for part, folder in folders.items():
        images, masks = (by_stem(folder / kind) for kind in ("images", "masks"))
        for alone, what, other in (
            (images.keys() - masks, "picture", "mask"),
            (masks.keys() - images, "mask", "picture"),
        ):
            if alone:
                raise UserError(f"{len(alone)} {what}(s) in {folder} have no {other}: {some(sorted(alone))}")
        pairs += [(part, images[stem], masks[stem]) for stem in sorted(images)]
    if not pairs:
        raise UserError(f"{root} holds no pictures")
    return pairs


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the pictures below a folder by their relative names without the ending."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; pictures and masks of the same names belong into images/ and masks/")
    return {str(path.relative_to(folder).with_suffix("")): path for path in find_pictures([folder])}


def decoded(name: str, pairs: list[Pair], max_side: int, root: Path) -> Path:
    """Decode pictures and masks into a cached folder for ``PictureStore``.

    Args:
        name: Start of the folder's name.
        pairs: Part, picture and mask.
        max_side: Longer sides are scaled down to this many pixels.
        root: Folder that the names in messages are relative to.

    Raises:
        UserError: A mask is no mask of its picture, or too many files are broken.
    """

    def build(folder: Path) -> None:
        skipped: list[str] = []
        channels = 1 if all(is_grey(picture) for _, picture, _ in pairs) else 3
        write_store(folder, channels, decode(pairs, channels, max_side, root, skipped), skipped)

    files = [(str(path), path.stat()) for pair in pairs for path in pair[1:]]
    stats = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in files]
    return cached(name, {"format": 1, "max_side": max_side, "parts": [p for p, _, _ in pairs], "files": stats}, build)


def decode(pairs: list[Pair], channels: int, max_side: int, root: Path, skipped: list[str]) -> Iterator[Sample]:
    """Yield the samples that can be read and add the names of the others to ``skipped``."""
    colours, sizes = [], []  # faults that make a mask worthless are gathered, to be told all at once
    for part, *paths in track(pairs, "reading pictures", transient=True, disable=len(pairs) < 100):
        opened = []
        for path in paths:
            try:
                opened.append(open_picture(path))
            except BrokenPicture as error:
                skipped.append(f"{path.relative_to(root)} ({error})")
        if len(opened) < 2:
            continue
        name = str(paths[1].relative_to(root))
        picture, mask = opened
        if (
            picture.size != mask.size
        ):  # a camera's mark to turn the photo counts if the mask was drawn on the turned one
            picture = upright(picture)
        ids = class_ids(mask)
        if ids is None:
            colours.append(name)
        elif picture.size != mask.size:
            sizes.append(f"{name} is {mask.width} x {mask.height}, its picture {picture.width} x {picture.height}")
        else:
            small = fit_within(picture.size, max_side)
            pixels = resized(to_array(picture, channels), small, Image.Resampling.BOX)
            yield part, name, pixels, resized(ids, small, Image.Resampling.NEAREST)
    if colours:
        raise UserError(f"{len(colours)} mask(s) in {root} are not pictures of class ids 0..255: {some(colours)}")
    if sizes:
        raise UserError(f"{len(sizes)} mask(s) in {root} differ from their pictures in size: {some(sizes)}")
    if len(skipped) > MAX_BROKEN * len(pairs):
        raise UserError(f"{len(skipped)} of {len(pairs)} pictures or masks in {root} are broken: {some(skipped)}")


def class_ids(mask: Image.Image) -> np.ndarray | None:
    """Return a mask's ids as uint8 (H, W), or None where it holds colours or ids above 255."""
    ids = np.asarray(mask)
    if ids.ndim == 3 and (ids == ids[:, :, :1]).all(axis=2).all():
        ids = ids[:, :, 0]  # grey, saved as colour
    if ids.ndim == 3 or ids.min() < 0 or ids.max() > 255:
        return None
    return ids.astype(np.uint8)
