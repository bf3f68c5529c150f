"""Pictures of short texts, such as captchas: the user's own folder, and what all such data have in common."""

import json
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import random_grid, warped
from datamodules.batches import generator_for, ordered, shuffled
from datamodules.captcha_files import find_texts, stretched, write_texts
from datamodules.picture_files import (
    UnlabelledPictures,
    find_pictures,
    kinds_of,
)
from datamodules.picture_store import PARTS, refuse_many_broken
from engine.cache import cached
from engine.errors import UserError, fault, some


@dataclass
class Texts:
    """Grey pictures of one size, and the text in each.

    Args:
        images: uint8 (N, H, W).
        texts: Text of every picture (N).
        parts: ``train``, ``val`` or ``test`` of every picture (N,).
        skipped: Files that could not be read.
        files: File of every picture, if they are from files of the user's.
    """

    images: np.ndarray
    texts: list[str]
    parts: np.ndarray
    skipped: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class PicturesOfText(Dataset[dict[str, Any]]):
    """Pictures of one part, a whole batch at a time.

    A batch has ``image``, uint8 (B, 1, H, W), ``target``, int64 (B, length of the longest text): numbers of characters
    from 1 on, and 0 behind the end, ``length``, int64 (B,), and ``seed``, a number that no other batch of the training
    has.

    Args:
        texts: All pictures.
        part: ``train``, ``val`` or ``test``.
        charset: The characters.
    """

    def __init__(self, texts: Texts, part: str, charset: str) -> None:
        self.images, self.rows = texts.images, np.flatnonzero(texts.parts == part)
        numbers = {character: number for number, character in enumerate(charset, start=1)}
        known = [[numbers[character] for character in text if character in numbers] for text in texts.texts]
        self.lengths = np.array([len(text) for text in known])
        self.targets = np.zeros((len(texts.texts), max(self.lengths)), np.int64)
        for row in self.rows:
            self.targets[row, : self.lengths[row]] = known[row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        rows = self.rows[np.array(numbers) % len(self)]  # see ShuffledEpochs
        return {
            "image": torch.from_numpy(self.images[rows][:, None]),
            "target": torch.from_numpy(self.targets[rows]),
            "length": torch.from_numpy(self.lengths[rows]),
            "seed": numbers[0],
        }


class CaptchaDataModule(LightningDataModule):
    """Batches of pictures of text, all of one size; a data set says where they come from.

    A batch has ``image``, float (B, 1, height, width) in [0, 1], ``target`` and ``length``. Training pictures are
    turned, scaled and shifted at random, a whole batch at a time.

    Args:
        height: Height at which pictures are used.
        width: Width at which pictures are used.
        batch_size: Pictures in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
    """

    def __init__(self, height: int, width: int, batch_size: int, degrees: float, scale: float) -> None:
        super().__init__()
        self.size, self.batch_size, self.degrees, self.scale = (height, width), batch_size, degrees, scale
        self.restored: dict[str, Any] = {}  # from a checkpoint: prediction needs no training data

    def load(self) -> Texts:
        """Return all pictures."""
        raise UserError(f"{type(self).__name__} does not say where its pictures are")

    @cached_property
    def texts(self) -> Texts:
        """All pictures."""
        return self.load()

    @property
    def in_channels(self) -> int:
        """Channels of a picture: colours are left out."""
        return 1

    @property
    def charset(self) -> str:
        """The characters that occur in training texts, in order."""
        return "".join(sorted(set("".join(self.of("train")))))

    @property
    def time_steps(self) -> int:
        """Time steps that the most demanding text needs: one a character, and one between two that are the same."""
        return max(len(text) + sum(a == b for a, b in pairwise(text)) for text in self.texts.texts)

    def of(self, part: str) -> list[str]:
        """Return the texts of a part."""
        return [text for text, p in zip(self.texts.texts, self.texts.parts, strict=True) if p == part]

    def prepare_data(self) -> None:
        for part in PARTS:
            texts = self.of(part)
            if not texts:
                count = len(self.texts.texts)
                fault(f"{count} picture(s) leave none for {part}; at least three different ones are needed")
            unknown = sorted(set("".join(texts)) - set(self.charset))
            if unknown:
                names = zip(texts, self.names(part), strict=True)
                wrong = [name if text in name else f"{name} ({text})" for text, name in names if set(text) & {*unknown}]
                fault(f"the training part has no picture with {some(unknown)}, which the {part} part has", wrong)

    def __str__(self) -> str:
        sizes = " / ".join(f"{len(self.of(part)):,} {part}" for part in PARTS)
        lengths = sorted({len(text) for text in self.texts.texts})
        span = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        skipped = (
            f"; skipped {len(self.texts.skipped)} broken: {some(self.texts.skipped)}" if self.texts.skipped else ""
        )
        shape = "x".join(map(str, self.size))
        return (
            f"{type(self).__name__}: {sizes} pictures of {shape}, {span} characters "
            f"of {len(self.charset)}: {self.charset}{skipped}"
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(PicturesOfText(self.texts, "train", self.charset), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order, without random changes."""
        return ordered(PicturesOfText(self.texts, part, self.charset), max(self.batch_size, 100))

    def names(self, part: str) -> list[str]:
        """Return the file of every picture of a part, or its text."""
        rows = np.flatnonzero(self.texts.parts == part)
        return [(self.texts.files or self.texts.texts)[row] for row in rows]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` which files are of another kind than most."""
        return {"kinds of files": kinds_of([Path(file) for file in self.texts.files]), "texts": self.of("train")[:12]}

    def predict_dataset(self, paths: list[Path]) -> UnlabelledPictures:
        """Return the user's picture files, and those below folders, as a data set for ``predict_step``."""
        return UnlabelledPictures(find_pictures(paths), partial(stretched, size=self.restored["size"]))

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        image = batch["image"].float() / 255
        if self.trainer and self.trainer.training and (self.degrees or self.scale):
            generator = generator_for(batch["seed"], image.device)
            image = warped(image, random_grid(image, self.degrees, self.scale, False, generator))
        return {"image": image, "target": batch["target"], "length": batch["length"]}

    def preparation(self) -> dict[str, Any]:
        how = (
            "upright, grey, stretched to height x width by Pillow's BOX from higher ones, else BILINEAR; divided by 255"
        )
        height, width = self.restored.get("size", self.size)
        return {"kind": "stretched", "how": how, "channels": 1, "height": height, "width": width}

    def state_dict(self) -> dict[str, Any]:
        return {"size": list(self.size)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


class CaptchaFolderDataModule(CaptchaDataModule):
    """The user's own pictures of text.

    The layout is ``root/*`` or ``root/{train,val,test}/*``. The text of a picture is its file's name without the
    ending, unless a ``labels.csv`` lies beside it, with a header and two columns: the file's name and its text. A
    missing val or test part is split off the training part, a tenth each, by content. Pictures are stretched to one
    size.

    Args:
        root: The folder.
        height: Height at which pictures are used.
        width: Width at which pictures are used.
        batch_size: Pictures in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
    """

    def __init__(
        self,
        root: str,
        height: int = 48,
        width: int = 128,
        batch_size: int = 16,
        degrees: float = 3,
        scale: float = 0.1,
    ) -> None:
        super().__init__(height, width, batch_size, degrees, scale)
        self.root = Path(root)

    def load(self) -> Texts:
        files = find_texts(self.root)

        def build(folder: Path) -> None:
            write_texts(folder, files, self.size, self.root)

        stats = [(str(path), text, path.stat()) for _, text, path in files]
        listing = [(path, text, stat.st_size, stat.st_mtime_ns) for path, text, stat in stats]
        folder = cached("texts", {"format": 2, "size": self.size, "files": listing}, build)
        index = json.loads((folder / "index.json").read_text("utf-8"))
        refuse_many_broken(index["skipped"], len(files), self.root)
        images = np.load(folder / "images.npy", mmap_mode="r")
        return Texts(images, index["texts"], np.array(index["parts"]), index["skipped"], index["files"])
