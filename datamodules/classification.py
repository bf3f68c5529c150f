"""Classification of the user's own folder of pictures, and what all labelled pictures have in common."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import cut_out, random_grid, random_shift, warped
from datamodules.batches import ResumableLoader, SameSizeBatches, ShuffledEpochs, generator_for, whole_batch
from datamodules.picture_files import (
    BrokenPicture,
    UnlabelledPictures,
    find_pictures,
    is_grey,
    open_picture,
    square,
)
from datamodules.picture_store import MAX_BROKEN, PARTS, split_by_content
from engine.cache import cached
from engine.errors import UserError, some


@dataclass
class Pictures:
    """Labelled pictures of one size.

    Args:
        images: uint8 (N, H, W, channels).
        labels: Class of every picture, int64 (N,).
        parts: ``train``, ``val`` or ``test`` of every picture, (N,).
        class_names: Names of the classes.
        skipped: Files that could not be read.
    """

    images: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    class_names: list[str]
    skipped: list[str] = field(default_factory=list)


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
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of a picture: 1 where all pictures of the data set are grey, else 3."""
        return self.restored.get("in_channels") or self.pictures.images.shape[3]

    @property
    def size(self) -> int:
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
                raise UserError(f"{count} picture(s) leave none for {part}; at least three different ones are needed")
        trained = set(pictures.labels[pictures.parts == "train"].tolist())
        for label in sorted(set(range(self.num_classes)) - trained):
            raise UserError(f"class {self.class_names[label]!r} has no training pictures")
        if self.num_classes < 2:
            raise UserError(f"there is one class only, {self.class_names[0]!r}; nothing is to be told apart")

    def __str__(self) -> str:
        pictures = self.pictures
        sizes = " / ".join(f"{int((pictures.parts == part).sum()):,} {part}" for part in PARTS)
        kind = "grey" if self.in_channels == 1 else "colour"
        shape = "x".join(map(str, pictures.images.shape[1:3]))
        skipped = f"; skipped {len(pictures.skipped)} broken: {some(pictures.skipped)}" if pictures.skipped else ""
        return f"{type(self).__name__}: {sizes} {kind} pictures of {shape}, {self.num_classes} classes{skipped}"

    def train_dataset(self) -> Dataset[dict[str, Any]]:
        """Return the training part, before any random change."""
        return LabelledPictures(self.pictures, "train")

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        dataset: Any = self.train_dataset()
        return ResumableLoader(
            dataset,
            min(self.batch_size, len(dataset)),
            sampler=ShuffledEpochs(len(dataset)),
            collate_fn=whole_batch,
            drop_last=True,  # a last batch of one picture would upset batch norm
            generator=torch.Generator(),  # else it would draw from the one that trainings are resumed by
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order, without random changes."""
        dataset = LabelledPictures(self.pictures, part)
        batches = SameSizeBatches([self.pictures.images.shape[1:3]] * len(dataset), max(self.batch_size, 100))
        return DataLoader(dataset, batch_sampler=batches, collate_fn=whole_batch, generator=torch.Generator())

    def predict_dataset(self, paths: list[Path]) -> UnlabelledPictures:
        """Return the user's picture files, and those below folders, as a data set for ``predict_step``."""
        prepare = partial(square, channels=self.in_channels, size=self.size)
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
        if self.shift:
            image = random_shift(image, self.shift, self.flip, generator)
        return cut_out(image, self.cutout, generator) if self.cutout else image

    def state_dict(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels, "size": self.size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


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
        folder = cached("classes", {"format": 1, "size": self.side, "files": listing}, build)
        index = json.loads((folder / "index.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r")
        return Pictures(images, np.array(index["labels"]), np.array(index["parts"]), names, index["skipped"])


File = tuple[str, str, Path]  # part, class, picture


def find_classes(root: Path) -> list[File]:
    """List part, class and path of the pictures of a folder in one of the two layouts.

    Raises:
        UserError: The folder is missing, holds no classes, or a class is empty or not in the training part.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    folders = {part: root / part for part in PARTS if (root / part).is_dir()} or {"train": root}
    if "train" not in folders:
        raise UserError(f"{root} has no folder 'train' beside {some(sorted(folders))}")
    files: list[File] = []
    for part, folder in folders.items():
        for kind in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            found = find_pictures([kind])
            if not found:
                raise UserError(f"the class folder {kind} holds no pictures")
            files += [(part, kind.name, path) for path in found]
    if not files:
        raise UserError(f"{folders['train']} holds no folder of pictures; each class needs its own")
    trained = {name for part, name, _ in files if part == "train"}
    for part, name, _ in files:
        if name not in trained:
            raise UserError(f"class {name!r} of {root / part} has no folder in {folders['train']}")
    return files


def write_pictures(folder: Path, files: list[File], names: list[str], size: int, root: Path) -> None:
    """Decode pictures into an empty folder: ``images.npy``, uint8 (N, size, size, channels), and ``index.json``.

    Raises:
        UserError: Too many files are broken.
    """
    with ThreadPoolExecutor() as pool:
        channels = 1 if all(pool.map(is_grey, (path for _, _, path in files))) else 3
        decoded = pool.map(partial(decode, channels=channels, size=size), (path for _, _, path in files))
        arrays, kept, skipped = [], [], []
        for file, array in zip(files, track_many(decoded, len(files)), strict=True):
            if isinstance(array, str):
                skipped.append(f"{file[2].relative_to(root)} ({array})")
            else:
                arrays.append(array)
                kept.append(file)
    if len(skipped) > MAX_BROKEN * len(files):
        raise UserError(f"{len(skipped)} of {len(files)} pictures in {root} are broken: {some(skipped)}")
    labels = [names.index(name) for _, name, _ in kept]
    present = np.eye(len(names), dtype=bool)[labels]
    hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    parts = split_by_content([part for part, _, _ in kept], hashes, present)
    np.save(folder / "images.npy", np.stack(arrays))
    (folder / "index.json").write_text(json.dumps({"labels": labels, "parts": parts, "skipped": skipped}))


def track_many(items: Iterator[Any], total: int) -> Iterator[Any]:
    """Show progress where it takes a while."""
    yield from track(items, "reading pictures", total, transient=True, disable=total < 500)


def decode(path: Path, channels: int, size: int) -> np.ndarray | str:
    """Return a picture as uint8 (size, size, channels), or what is wrong with it."""
    try:
        return square(open_picture(path), channels, size)
    except BrokenPicture as error:
        return str(error)
