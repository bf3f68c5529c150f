"""Labelled pictures of one size: what all data for classifying pictures have in common."""

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import cut_out, random_grid, random_shift, warped
from datamodules.batches import generator_for, ordered, shuffled
from datamodules.picture_files import UnlabelledPictures, find_pictures, kinds_of, square
from datamodules.picture_store import PARTS
from engine.errors import UserError, fault, some


@dataclass
class Pictures:
    """Labelled pictures of one size.

    Args:
        images: uint8 (N, H, W, channels).
        labels: Class of every picture, int64 (N,).
        parts: ``train``, ``val`` or ``test`` of every picture, (N,).
        class_names: Names of the classes; none if the pictures have no labels.
        skipped: Files that could not be read.
        files: File of every picture, if they are from files of the user's.
    """

    images: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    class_names: list[str]
    skipped: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class LabelledPictures(Dataset[dict[str, Any]]):
    """Pictures of one part, a whole batch at a time.

    A batch has ``image``, uint8 (B, channels, H, W), ``label``, int64 (B,), and ``seed``, a number that no other batch
    of the training has.

    Args:
        pictures: All pictures.
        part: ``train``, ``val`` or ``test``.
    """

    def __init__(self, pictures: Pictures, part: str) -> None:
        self.pictures = pictures
        self.rows = np.flatnonzero(pictures.parts == part)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        rows = self.rows[np.array(numbers) % len(self)]  # see ShuffledEpochs
        image = torch.from_numpy(self.pictures.images[rows]).permute(0, 3, 1, 2)
        return {"image": image, "label": torch.from_numpy(self.pictures.labels[rows]), "seed": numbers[0]}


class ClassificationDataModule(LightningDataModule):
    """Batches of labelled pictures of one size; a data set says where they come from.

    A batch has ``image``, float (B, in_channels, H, W) in [0, 1], and ``label``, int64 (B,). Training pictures are
    changed at random, a whole batch at a time, on the device where it lies.

    Args:
        batch_size: Pictures in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        shift: Largest random shift in pixels.
        flip: Whether training pictures are mirrored left to right at random.
        cutout: Side in pixels of a square that is painted grey, 0 for none.
    """

    def __init__(
        self,
        batch_size: int,
        degrees: float = 0,
        scale: float = 0,
        shift: int = 0,
        flip: bool = False,
        cutout: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.degrees, self.scale = batch_size, degrees, scale
        self.shift, self.flip, self.cutout = shift, flip, cutout
        self.restored: dict[str, Any] = {}  # from a checkpoint: prediction needs no training data

    def load(self) -> Pictures:
        """Return all pictures."""
        raise UserError(f"{type(self).__name__} does not say where its pictures are")

    @cached_property
    def pictures(self) -> Pictures:
        """All pictures."""
        return self.load()

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return self.pictures.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        if len(self.class_names) == 1:
            fault(f"there is one class only, {self.class_names[0]!r}; nothing is to be told apart")
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of a picture: 1 where all pictures of the data set are grey, else 3."""
        return self.restored.get("in_channels") or self.pictures.images.shape[3]

    @property
    def image_size(self) -> int:
        """Height and width of a picture."""
        return self.restored.get("size") or self.pictures.images.shape[1]

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every channel over a thousand training pictures, (in_channels,)."""
        rows = np.flatnonzero(self.pictures.parts == "train")
        images = self.pictures.images[rows[:: 1 + len(rows) // 1000]] / 255
        mean, deviation = images.mean((0, 1, 2)), images.std((0, 1, 2))
        return torch.tensor(mean).float(), torch.tensor(deviation).float()

    def prepare_data(self) -> None:
        pictures = self.pictures
        for part in PARTS:
            if part not in pictures.parts:
                count = len(pictures.parts)
                fault(f"{count} picture(s) leave none for {part}; at least three different ones are needed")
        trained = set(pictures.labels[pictures.parts == "train"].tolist())
        for label in sorted(set(range(self.num_classes)) - trained):
            fault(f"class {self.class_names[label]!r} has no training pictures")

    def __str__(self) -> str:
        pictures = self.pictures
        sizes = " / ".join(f"{int((pictures.parts == part).sum()):,} {part}" for part in PARTS)
        kind = "grey" if self.in_channels == 1 else "colour"
        shape = "x".join(map(str, pictures.images.shape[1:3]))
        skipped = f"; skipped {len(pictures.skipped)} broken: {some(pictures.skipped)}" if pictures.skipped else ""
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return f"{type(self).__name__}: {sizes} {kind} pictures of {shape}{classes}{skipped}"

    def train_dataset(self) -> Dataset[dict[str, Any]]:
        """Return the training part, before any random change."""
        return LabelledPictures(self.pictures, "train")

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(self.train_dataset(), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order, without random changes."""
        dataset = LabelledPictures(self.pictures, part)
        sizes = [self.pictures.images.shape[1:3]] * len(dataset)
        return ordered(dataset, max(self.batch_size, 100), sizes, shared=part != "train")

    def names(self, part: str) -> list[str]:
        """Return where every picture of a part is from."""
        rows, files = np.flatnonzero(self.pictures.parts == part), self.pictures.files
        return [files[row] if files else f"{part} picture {i}" for i, row in enumerate(rows)]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` which files are of another kind than most."""
        return {"kinds of files": kinds_of([Path(file) for file in self.pictures.files])}

    def predict_dataset(self, paths: list[Path]) -> UnlabelledPictures:
        """Return the user's picture files, and those below folders, as a data set for ``predict_step``."""
        prepare = partial(square, channels=self.in_channels, size=self.image_size)
        return UnlabelledPictures(find_pictures(paths), prepare)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        image = batch["image"].float() / 255
        if self.trainer and self.trainer.training:
            image = self.changed(image, generator_for(batch["seed"], image.device))
        return {"image": image, "label": batch["label"]}

    def changed(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return pictures (B, in_channels, H, W) changed at random."""
        if self.degrees or self.scale:
            image = warped(image, random_grid(image, self.degrees, self.scale, self.flip, generator))
        if self.shift or (self.flip and not self.degrees and not self.scale):
            image = random_shift(image, self.shift, self.flip, generator)
        return cut_out(image, self.cutout, generator) if self.cutout else image

    def preparation(self) -> dict[str, Any]:
        how = "upright, the middle square at one size: by Pillow's BOX from larger ones, else BILINEAR; divided by 255"
        return {"kind": "square", "how": how, "channels": self.in_channels, "size": self.image_size}

    def state_dict(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels, "size": self.image_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict
