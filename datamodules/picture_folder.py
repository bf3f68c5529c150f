"""The user's own pictures, without labels and all of one size: for nets that learn what pictures look like."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.labelled_pictures import ClassificationDataModule, Pictures
from datamodules.picture_files import find_pictures, is_grey, open_picture, square
from datamodules.picture_store import decode_files, folders_of, refuse_many_broken, split_by_content
from engine.cache import cached
from engine.errors import UserError


class PictureFolderDataModule(ClassificationDataModule):
    """Any folder of pictures, with folders within it, or ``root/{train,val,test}/*``; there is nothing to tell apart.

    A missing val or test part is split off the training part, a tenth each, by content. Of every picture the middle
    square is used, at one size. Other files are left alone.

    Args:
        root: The folder.
        size: Height and width at which pictures are used.
        grey: Whether colours are left out.
        batch_size: Pictures in a batch.
        flip: Whether training pictures are mirrored left to right at random.
    """

    def __init__(self, root: str, size: int = 64, grey: bool = False, batch_size: int = 64, flip: bool = True) -> None:
        super().__init__(batch_size, flip=flip, shift=0)
        self.root, self.side, self.grey = Path(root), size, grey

    def load(self) -> Pictures:
        files = [(part, "", path) for part, folder in folders_of(self.root).items() for path in find_pictures([folder])]
        if not files:
            raise UserError(f"{self.root} holds no pictures")

        def build(folder: Path) -> None:
            with ThreadPoolExecutor() as pool:
                colours = not self.grey and not all(pool.map(is_grey, (path for _, _, path in files)))
            prepare = partial(self.decode, channels=3 if colours else 1)
            arrays, kept, skipped = decode_files(files, prepare, self.root)
            hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
            parts = split_by_content([part for part, _, _ in kept], hashes, np.zeros((len(kept), 0), bool))
            np.save(folder / "images.npy", arrays)
            index = {"parts": parts, "skipped": skipped, "files": [str(path) for _, _, path in kept]}
            (folder / "index.json").write_text(json.dumps(index))

        stats = [(part, str(path), path.stat()) for part, _, path in files]
        listing = [(part, path, stat.st_size, stat.st_mtime_ns) for part, path, stat in stats]
        folder = cached("pictures", {"format": 2, "size": self.side, "grey": self.grey, "files": listing}, build)
        index = json.loads((folder / "index.json").read_text())
        refuse_many_broken(index["skipped"], len(files), self.root)
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels, parts = np.zeros(len(images), np.int64), np.array(index["parts"])
        return Pictures(images, labels, parts, [], index["skipped"], index["files"])

    def decode(self, path: Path, channels: int) -> np.ndarray:
        """Return a picture as uint8 (size, size, channels)."""
        return square(open_picture(path), channels, self.side)
