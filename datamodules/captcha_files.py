"""Pictures of short texts as they lie in a folder, and the texts in them."""

import csv
import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.picture_files import find_pictures, open_picture, resized, to_array, upright
from datamodules.picture_store import File, decode_files, folders_of, split_by_content
from engine.errors import UserError, fault

LABELS = "labels.csv"  # columns: the file's name, its text


def find_texts(root: Path) -> list[File]:
    """List part, text and path of the pictures of a folder in one of the two layouts.

    Raises:
        UserError: The folder is missing or empty, or a ``labels.csv`` names pictures that are not there.
    """
    folders = folders_of(root)
    files: list[File] = []
    for part, folder in folders.items():
        labels = folder / LABELS
        found = read_labels(labels) if labels.exists() else {path: path.stem for path in find_pictures([folder])}
        if not found:
            raise UserError(f"{folder} holds no pictures")
        files += [(part, text, path) for path, text in found.items()]
    return files


def read_labels(path: Path) -> dict[Path, str]:
    """Return the pictures that a ``labels.csv`` names, and their texts.

    Raises:
        UserError: The table is not UTF-8, has lines without two columns or without a text, or names missing pictures.
    """
    content = path.read_bytes()
    try:
        lines = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path} is not UTF-8: byte {error.start}, in line {line}") from error
    odd = [f"{path}, line {number}" for number, line in enumerate(lines, start=1) if len(line) != 2 or not line[1]]
    if odd:
        fault("no file and text, separated by a comma", odd)
    good = [(number, line) for number, line in enumerate(lines, start=1) if number > 1 and len(line) == 2]
    numbered = [(number, name, text) for number, (name, text) in good]
    texts = {path.parent / name: text for _, name, text in numbered if text}
    missing = [f"{name} (line {number})" for number, name, _ in numbered if not (path.parent / name).is_file()]
    if missing:
        fault(f"{path} names {len(missing)} picture(s) that are not there", missing)
    return {file: text for file, text in texts.items() if file.is_file()}


def write_texts(folder: Path, files: list[File], size: tuple[int, int], root: Path) -> None:
    """Decode pictures into an empty folder: ``images.npy``, uint8 (N, H, W), and ``index.json``.

    Raises:
        UserError: Too many files are broken.
    """
    arrays, kept, skipped = decode_files(files, partial(decode, size=size), root)
    texts = [text for _, text, _ in kept]
    charset = sorted(set("".join(texts)))
    present = np.array([[character in text for character in charset] for text in texts])
    hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    parts = split_by_content([part for part, _, _ in kept], hashes, present)
    np.save(folder / "images.npy", arrays)
    index = {"texts": texts, "parts": parts, "skipped": skipped, "files": [str(path) for _, _, path in kept]}
    (folder / "index.json").write_text(json.dumps(index), "utf-8")


def decode(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return a picture as uint8 (height, width)."""
    return stretched(open_picture(path), size)[:, :, 0]


def stretched(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return a picture without colours, stretched to (height, width), as uint8 (height, width, 1)."""
    height, width = size
    pixels = to_array(upright(picture), channels=1)
    return resized(
        pixels, (width, height), Image.Resampling.BOX if pixels.shape[0] > height else Image.Resampling.BILINEAR
    )
