"""Classification of the user's own folder of pictures."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.labelled_pictures import ClassificationDataModule, Pictures
from datamodules.picture_files import find_pictures, is_grey, open_picture, square, unused_files
from datamodules.picture_store import File, decode_files, folders_of, refuse_many_broken, split_by_content
from engine.cache import cached
from engine.errors import UserError, fault


class ImageFolderDataModule(ClassificationDataModule):
    """The user's own pictures, a folder for each class.

    The layout is ``root/<class>/*`` or ``root/{train,val,test}/<class>/*``; folders within a class's folder belong to
    it. A missing val or test part is split off the training part, a tenth each, by content. Of every picture the middle
    square is used, at one size. Files that are no pictures are left alone.

    Args:
        root: The folder.
        size: Height and width at which pictures are used.
        batch_size: Pictures in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        shift: Largest random shift in pixels.
        flip: Whether training pictures are mirrored left to right at random.
        cutout: Side in pixels of a square that is painted grey, 0 for none.
    """

    def __init__(
        self,
        root: str,
        size: int = 32,
        batch_size: int = 64,
        degrees: float = 0,
        scale: float = 0,
        shift: int = 4,
        flip: bool = True,
        cutout: int = 0,
    ) -> None:
        super().__init__(batch_size, degrees, scale, shift, flip, cutout)
        self.root, self.side = Path(root), size

    def load(self) -> Pictures:
        files = find_classes(self.root)
        names = sorted({name for _, name, _ in files})

        def build(folder: Path) -> None:
            write_pictures(folder, files, names, self.side, self.root)

        stats = [(str(path), path.stat()) for _, _, path in files]
        listing = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        folder = cached("classes", {"format": 2, "size": self.side, "files": listing}, build)
        index = json.loads((folder / "index.json").read_text())
        refuse_many_broken(index["skipped"], len(files), self.root)
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels, parts = np.array(index["labels"]), np.array(index["parts"])
        return Pictures(images, labels, parts, names, index["skipped"], index["files"])

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` which files are of another kind than most; return also those that are in no class."""
        used = [path for _, _, path in find_classes(self.root)]
        return super().examine() | {"files that are in no class or no pictures": unused_files(self.root, used)}


def find_classes(root: Path) -> list[File]:
    """List part, class and path of the pictures of a folder in one of the two layouts.

    Raises:
        UserError: The folder is missing, holds no classes, or a class is empty or not in the training part.
    """
    folders = folders_of(root)
    files: list[File] = []
    for part, folder in folders.items():
        for kind in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            found = find_pictures([kind])
            if not found:
                fault(f"the class folder {kind} holds no pictures")
            files += [(part, kind.name, path) for path in found]
    if not files:
        raise UserError(f"{folders['train']} holds no folder of pictures; each class needs its own")
    trained = {name for part, name, _ in files if part == "train"}
    for part, name in sorted({(part, name) for part, name, _ in files if name not in trained}):
        places = [str(path) for other, kind, path in files if (other, kind) == (part, name)]
        fault(f"class {name!r} of {root / part} has no folder in {folders['train']}", places)
    return [file for file in files if file[1] in trained]


def write_pictures(folder: Path, files: list[File], names: list[str], size: int, root: Path) -> None:
    """Decode pictures into an empty folder: ``images.npy``, uint8 (N, size, size, channels), and ``index.json``.

    Raises:
        UserError: Too many files are broken.
    """
    with ThreadPoolExecutor() as pool:
        channels = 1 if all(pool.map(is_grey, (path for _, _, path in files))) else 3
    arrays, kept, skipped = decode_files(files, partial(decode, channels=channels, size=size), root)
    labels = [names.index(name) for _, name, _ in kept]
    present = np.eye(len(names), dtype=bool)[labels]
    hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    parts = split_by_content([part for part, _, _ in kept], hashes, present)
    np.save(folder / "images.npy", arrays)
    index = {"labels": labels, "parts": parts, "skipped": skipped, "files": [str(path) for _, _, path in kept]}
    (folder / "index.json").write_text(json.dumps(index))


def decode(path: Path, channels: int, size: int) -> np.ndarray:
    """Return a picture as uint8 (size, size, channels)."""
    return square(open_picture(path), channels, size)
