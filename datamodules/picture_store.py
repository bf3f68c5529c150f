"""Pictures, with masks or without, decoded once into memory-mapped arrays of bytes, from which all batches come."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from datamodules.picture_files import BrokenPicture
from engine.errors import UserError, fault, note

PARTS = ("train", "val", "test")
MAX_BROKEN = 0.05  # share of unreadable files above which a data set is refused

# Part, name, picture (H, W, channels) and mask (H, W), both uint8; photographs have no mask.
Sample = tuple[str, str, np.ndarray, np.ndarray | None]
File = tuple[str, str, Path]  # part, label, picture


class PictureStore:
    """Pictures of any sizes, and their masks if they have some, one behind the other, with what is known of each.

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
        self.masks = np.memmap(folder / "masks.bin", np.uint8, "r") if self.counts.any() else None

    def read(self, index: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window of a picture (height, width, channels)."""
        return self._array(self.pixels, index)[top : top + height, left : left + width]

    def read_mask(self, index: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window of a mask (height, width)."""
        return self._array(self.masks, index)[top : top + height, left : left + width, 0]

    def _array(self, values: Any, index: int) -> np.ndarray:
        return values[self.starts[index] : self.starts[index + 1]].reshape(*self.sizes[index], -1)


def write_store(
    folder: Path,
    channels: int,
    samples: Iterator[Sample],
    skipped: list[str],
    wrong: dict[str, list[str]] | None = None,
) -> None:
    """Fill an empty folder for ``PictureStore``.

    Args:
        folder: Where to write.
        channels: Channels of every picture.
        samples: The pictures, consumed one by one.
        skipped: What ``samples`` has left out since it cannot be read, complete when it ends.
        wrong: What it has left out for other reasons: each reason and the files, complete when it ends.

    Raises:
        UserError: There are no samples.
    """
    names, parts, sizes, counts, hashes = [], [], [], [], []
    with (folder / "pixels.bin").open("wb") as pixels, (folder / "masks.bin").open("wb") as masks:
        for part, name, picture, mask in samples:
            pixels.write(picture.tobytes())
            names.append(name)
            parts.append(part)
            sizes.append(picture.shape[:2])
            counts.append(np.zeros(256, int) if mask is None else np.bincount(mask.ravel(), minlength=256))
            if mask is not None:
                masks.write(mask.tobytes())
            hashes.append(hashlib.sha256(picture.tobytes()).hexdigest())
    if not names:
        everything = skipped + [place for places in (wrong or {}).values() for place in places]
        raise UserError(f"{len(everything)} of {len(everything)} pictures are broken", everything)
    parts = split_by_content(parts, hashes, np.array(counts) > 0)
    np.save(folder / "counts.npy", np.array(counts))
    index = {"channels": channels, "names": names, "parts": parts, "sizes": sizes, "skipped": skipped}
    index["wrong"] = wrong or {}
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


def folders_of(root: Path) -> dict[str, Path]:
    """Return the folder of every part: ``root/{train,val,test}``, as far as they are there, or ``root`` to train on.

    Raises:
        UserError: There is no such folder, or parts of it but none to train on.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    folders = {part: root / part for part in PARTS if (root / part).is_dir()} or {"train": root}
    if "train" not in folders:
        raise UserError(f"{root} has no folder 'train', but others", sorted(folders))
    return folders


def decode_files(
    files: list[File], decode: Callable[[Path], np.ndarray], root: Path
) -> tuple[np.ndarray, list[File], list[str]]:
    """Decode picture files side by side, to one size.

    Args:
        files: The files.
        decode: From a file to its pixels; raises ``BrokenPicture``.
        root: Folder that the names in messages are relative to.

    Returns:
        Pixels of the files that can be read (N, ...), these files, and the others, each with what is wrong.

    Raises:
        UserError: Too many files are broken.
    """

    def attempt(file: File) -> np.ndarray | str:
        try:
            return decode(file[2])
        except BrokenPicture as error:
            return f"{file[2].relative_to(root)} ({error})"

    with ThreadPoolExecutor() as pool:
        results = pool.map(attempt, files)
        decoded = list(track(results, "reading pictures", len(files), transient=True, disable=len(files) < 500))
    skipped = [result for result in decoded if isinstance(result, str)]
    if len(skipped) == len(files):
        raise UserError(f"{len(files)} of {len(files)} pictures in {root} are broken", skipped)
    refuse_many_broken(skipped, len(files), root)  # before a cache remembers them
    both = [(pixels, file) for pixels, file in zip(decoded, files, strict=True) if not isinstance(pixels, str)]
    return np.stack([pixels for pixels, _ in both]), [file for _, file in both], skipped


def without_faults(folder: Path, total: int, root: Path) -> Path:
    """Return the folder of a store that left nothing out but a few unreadable files.

    Args:
        folder: What ``write_store`` has filled.
        total: Number of files that there were.
        root: Where they are from.
    """
    index = json.loads((folder / "index.json").read_text())
    for words, places in index["wrong"].items():
        fault(f"{len(places)} {words} ({root})", places)
    refuse_many_broken(index["skipped"], total, root)
    return folder


def refuse_many_broken(skipped: list[str], total: int, root: Path) -> None:
    """Refuse a folder of which too many files cannot be read; ``check`` hears of any.

    Args:
        skipped: The files, each with what is wrong.
        total: Number of all files.
        root: The folder.
    """
    words = f"{len(skipped)} of {total} pictures in {root} are broken"
    if len(skipped) > MAX_BROKEN * total:
        fault(words, skipped)
    elif skipped:
        note(f"{words}, which trainings leave out", skipped, broken=True)
