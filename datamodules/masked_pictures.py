"""Pictures with masks of class ids: finding them in folders, and decoding them once."""

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
from datamodules.picture_store import Sample, folders_of, without_faults, write_store
from engine.cache import cached
from engine.errors import UserError, fault

Pair = tuple[str, Path, Path]  # part, picture, mask


def find_pairs(root: Path) -> list[Pair]:
    """List part, picture and mask of a folder in one of the two layouts.

    Raises:
        UserError: The folder is missing or empty, or a picture or a mask stands alone.
    """
    pairs: list[Pair] = []
    for part, folder in folders_of(root).items():
        images, masks = (by_stem(folder / kind) for kind in ("images", "masks"))
        for alone, what, other in (
            (images.keys() - masks, "picture", "mask"),
            (masks.keys() - images, "mask", "picture"),
        ):
            if alone:
                fault(f"{len(alone)} {what}(s) in {folder} have no {other}", sorted(alone))
        pairs += [(part, images[stem], masks[stem]) for stem in sorted(images.keys() & masks)]
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
        wrong: dict[str, list[str]] = {}
        channels = 1 if all(is_grey(picture) for _, picture, _ in pairs) else 3
        write_store(folder, channels, decode(pairs, channels, max_side, root, skipped, wrong), skipped, wrong)
        without_faults(folder, len(pairs), root)  # before a cache remembers them

    files = [(str(path), path.stat()) for pair in pairs for path in pair[1:]]
    stats = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in files]
    key = {"format": 2, "max_side": max_side, "parts": [part for part, _, _ in pairs], "files": stats}
    return without_faults(cached(name, key, build), len(pairs), root)


def decode(
    pairs: list[Pair], channels: int, max_side: int, root: Path, skipped: list[str], wrong: dict[str, list[str]]
) -> Iterator[Sample]:
    """Yield the samples that can be used; add what cannot be read to ``skipped``, unusable masks to ``wrong``."""
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
            wrong.setdefault("mask(s) are not pictures of class ids 0..255", []).append(name)
        elif picture.size != mask.size:
            sizes = f"{name} is {mask.width} x {mask.height}, its picture {picture.width} x {picture.height}"
            wrong.setdefault("mask(s) differ from their pictures in size", []).append(sizes)
        else:
            small = fit_within(picture.size, max_side)
            pixels = resized(to_array(picture, channels), small, Image.Resampling.BOX)
            yield part, name, pixels, resized(ids, small, Image.Resampling.NEAREST)


def class_ids(mask: Image.Image) -> np.ndarray | None:
    """Return a mask's ids as uint8 (H, W), or None where it holds colours or ids above 255."""
    ids = np.asarray(mask)
    if ids.ndim == 3 and (ids == ids[:, :, :1]).all(axis=2).all():
        ids = ids[:, :, 0]  # grey, saved as colour
    if ids.ndim == 3 or ids.min() < 0 or ids.max() > 255:
        return None
    return ids.astype(np.uint8)
