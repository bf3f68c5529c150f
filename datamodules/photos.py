"""Clean photographs, for tasks that spoil and restore them: any folder, and what all such data have in common."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import random_symmetry
from datamodules.batches import generator_for, ordered, shuffled
from datamodules.photo_files import File, PhotosToRestore, decoded_photos
from datamodules.picture_files import find_pictures, kinds_of
from datamodules.picture_store import PARTS, PictureStore, folders_of
from engine.errors import UserError, fault, note, some

MIDDLE = 128  # height and width of the windows that validate


class Windows(Dataset[dict[str, Any]]):
    """Square windows at random places of the training photos, a whole batch at a time.

    A batch has ``image``, uint8 (B, channels, side, side), and ``seed``, a number that no other batch of the training
    has. A photo is drawn the more often the larger it is; one that is smaller than the window is reflected to fill it.

    Args:
        store: The photos.
        side: Height and width of a window.
        count: Windows in an epoch.
    """

    def __init__(self, store: PictureStore, side: int, count: int) -> None:
        self.store, self.side, self.count = store, side, count
        self.indices = [i for i, part in enumerate(store.parts) if part == "train"]
        areas = torch.tensor([store.sizes[i][0] * store.sizes[i][1] for i in self.indices], dtype=torch.float64)
        self.shares = areas.cumsum(0) / areas.sum()

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        images = torch.from_numpy(np.stack([self._window(number) for number in numbers]))
        return {"image": images.permute(0, 3, 1, 2), "seed": numbers[0]}

    def _window(self, number: int) -> np.ndarray:
        at, down, right = torch.rand(3, generator=generator_for(number), dtype=torch.float64).tolist()
        index = self.indices[min(int(torch.searchsorted(self.shares, at)), len(self.indices) - 1)]
        top, left = (
            int(share * (max(0, side - self.side) + 1))
            for share, side in zip((down, right), self.store.sizes[index], strict=True)
        )
        window = self.store.read(index, top, left, self.side, self.side)
        missing = [(0, self.side - side) for side in window.shape[:2]]
        return np.pad(window, [*missing, (0, 0)], mode="symmetric") if np.any(missing) else window


class WholePhotos(Dataset[dict[str, Any]]):
    """The photos of one part, or their middles; those of a batch must be of one size.

    A batch has ``image``, uint8 (B, channels, H, W).

    Args:
        store: The photos.
        part: ``train``, ``val`` or ``test``.
        middle: Largest height and width of what is used of a photo, or None for all of it.
    """

    def __init__(self, store: PictureStore, part: str, middle: int | None = None) -> None:
        self.store = store
        self.indices = [i for i, other in enumerate(store.parts) if other == part]
        self.sizes = [(min(h, middle or h), min(w, middle or w)) for h, w in (store.sizes[i] for i in self.indices)]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        return {"image": torch.from_numpy(np.stack([self._photo(i) for i in indices])).permute(0, 3, 1, 2)}

    def _photo(self, index: int) -> np.ndarray:
        (height, width), whole = self.sizes[index], self.store.sizes[self.indices[index]]
        top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
        return self.store.read(self.indices[index], top, left, height, width)


class PhotosDataModule(LightningDataModule):
    """Windows and whole photos from a ``PictureStore``; a data set says how its store is made.

    A batch has ``image``, float (B, in_channels, H, W) in [0, 1]. Training windows are mirrored, and turned, at random;
    validation looks at the middle of each photo, the test at all of it.

    Args:
        grey: Whether colours are left out.
        crop: Height and width of a training window.
        windows: Training windows in an epoch.
        batch_size: Windows in a batch.
        turn: Whether windows are turned by quarters and stood on their heads, besides being mirrored.
    """

    def __init__(self, grey: bool, crop: int, windows: int, batch_size: int, turn: bool) -> None:
        super().__init__()
        self.grey, self.crop, self.windows, self.batch_size, self.turn = grey, crop, windows, batch_size, turn
        self.restored_channels: int | None = None  # from a checkpoint: prediction needs no training data

    def build_store(self) -> Path:
        """Return the folder of the store, filled now or earlier."""
        raise UserError(f"{type(self).__name__} does not say where its photos are")

    @cached_property
    def store(self) -> PictureStore:
        """The decoded photos."""
        return PictureStore(self.build_store())

    @property
    def in_channels(self) -> int:
        """Channels of a photo: 1 where all photos of the data set are grey, else 3."""
        return self.restored_channels or self.store.channels

    def prepare_data(self) -> None:
        store = self.store
        for part in PARTS:
            if part not in store.parts:
                count = len(store.parts)
                fault(f"{count} photo(s) leave none for {part}; at least three different ones are needed")

    def __str__(self) -> str:
        store = self.store
        sizes = " / ".join(f"{store.parts.count(part):,} {part}" for part in PARTS)
        kind = "grey" if store.channels == 1 else "colour"
        skipped = f"; skipped {len(store.skipped)} broken: {some(store.skipped)}" if store.skipped else ""
        return f"{type(self).__name__}: {sizes} {kind} photos, windows of {self.crop}x{self.crop}{skipped}"

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(Windows(self.store, self.crop, self.windows), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return the photos of a part in a fixed order: whole ones of the test part, else their middles."""
        dataset = WholePhotos(self.store, part, None if part == "test" else MIDDLE)
        return ordered(dataset, self.batch_size, dataset.sizes, shared=part != "train")

    def names(self, part: str) -> list[str]:
        """Return the name of every photo of a part."""
        return [name for name, other in zip(self.store.names, self.store.parts, strict=True) if other == part]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` which training photos are smaller than a window."""
        sizes = dict(zip(self.store.names, self.store.sizes, strict=True))
        found = {name: sizes[name] for name in self.names("train") if min(sizes[name]) < self.crop}
        small = [f"{name} ({width} x {height})" for name, (height, width) in found.items()]
        if small:
            note(f"{len(small)} training photo(s) are smaller than a window of {self.crop} and are reflected", small)
        return {}

    def samples(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return the whole photos of a part in a fixed order."""
        dataset = WholePhotos(self.store, part)
        return ordered(dataset, self.batch_size, dataset.sizes)

    def some_windows(self, count: int, side: int) -> Tensor:
        """Return windows of the training photos, uint8 (count, in_channels, side, side), the same in every training."""
        with isolate_rng():
            torch.manual_seed(0)  # their places follow from it
            return Windows(self.store, side, count).__getitems__(list(range(count)))["image"]

    def predict_dataset(self, paths: list[Path]) -> PhotosToRestore:
        """Return the user's picture files, and those below folders, as a data set for ``predict_step``."""
        return PhotosToRestore(find_pictures(paths), self.in_channels)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        image = batch["image"].float() / 255
        if self.trainer and self.trainer.training:
            image = random_symmetry(image, self.turn, generator_for(batch["seed"], image.device))
        return {"image": image}

    def preparation(self) -> dict[str, Any]:
        return {"kind": "whole", "how": "upright, at its own size, divided by 255", "channels": self.in_channels}

    def state_dict(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored_channels = state_dict["in_channels"]


class PhotoFolderDataModule(PhotosDataModule):
    """The user's own photos.

    The layout is any folder of pictures, or ``root/{train,val,test}/*``, with folders within them. A missing val or
    test part is split off the training part, a tenth each, by content. Other files are left alone.

    Args:
        root: The folder.
        grey: Whether colours are left out.
        crop: Height and width of a training window.
        windows: Training windows in an epoch.
        batch_size: Windows in a batch.
        turn: Whether windows are turned by quarters and stood on their heads, besides being mirrored.
        max_side: Longer sides are scaled down to this many pixels in training and measuring; predictions keep theirs.
    """

    def __init__(
        self,
        root: str,
        grey: bool = False,
        crop: int = 64,
        windows: int = 8000,
        batch_size: int = 8,
        turn: bool = False,
        max_side: int = 1024,
    ) -> None:
        super().__init__(grey, crop, windows, batch_size, turn)
        self.root, self.max_side = Path(root), max_side

    @property
    def files(self) -> list[File]:
        """Part and path of every photo."""
        return [(part, path) for part, folder in folders_of(self.root).items() for path in find_pictures([folder])]

    def build_store(self) -> Path:
        if not self.files:
            raise UserError(f"{self.root} holds no pictures")
        return decoded_photos(self.files, self.grey, self.max_side, self.root)

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` also which photos are of another kind than most."""
        return super().examine() | {"kinds of files": kinds_of([path for _, path in self.files])}
