"""Segmentation of the user's own folder, and what all segmentation data have in common."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import random_colour, random_grid, warped
from datamodules.batches import generator_for, ordered, shuffled
from datamodules.masked_pictures import decoded, find_pairs
from datamodules.picture_files import UnlabelledPictures, find_pictures, fitted, kinds_of, unused_files
from datamodules.picture_store import PARTS, PictureStore
from engine.errors import UserError, fault, some

IGNORE = 255  # pixels of this class are neither trained on nor measured


class SegmentationPictures(Dataset[dict[str, Any]]):
    """Pictures and their masks, a whole batch at a time.

    A batch has ``image``, uint8 (B, channels, H, W), ``mask``, uint8 (B, H, W), of classes and 255 for ignored, and
    ``seed``, a number that no other batch of the training has.

    Args:
        store: The pictures.
        part: ``train``, ``val`` or ``test``.
        class_of_id: Class of every id that a mask may hold, uint8 (256,).
        crop: Height and width of random windows, or None for whole pictures (those of a batch must be of one size).
    """

    def __init__(self, store: PictureStore, part: str, class_of_id: np.ndarray, crop: int | None = None) -> None:
        self.store, self.class_of_id, self.crop = store, class_of_id, crop
        self.indices = []
        for index, (other, (height, width)) in enumerate(zip(store.parts, store.sizes, strict=True)):
            windows = max(1, round(height * width / crop**2)) if crop else 1  # an epoch sees about every pixel once
            self.indices += [index] * windows if other == part else []
        self.sizes = [store.sizes[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        windows = [self._window(index) for index in indices]
        images, masks = (np.stack(arrays) for arrays in zip(*windows, strict=True))
        image, mask = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)
        return {"image": image, "mask": mask, "seed": indices[0]}

    def _window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        index = number % len(self)  # see ShuffledEpochs
        height, width = self.sizes[index]
        if not self.crop:
            whole = (self.indices[index], 0, 0, height, width)
            return self.store.read(*whole), self.class_of_id[self.store.read_mask(*whole)]
        generator = generator_for(number)
        top, left = (
            int(torch.randint(max(0, side - self.crop) + 1, (), generator=generator)) for side in (height, width)
        )
        window = (self.indices[index], top, left, self.crop, self.crop)
        picture, mask = self.store.read(*window), self.store.read_mask(*window)
        # A picture smaller than the window is reflected to fill it; reflections count for nothing.
        missing = [(0, self.crop - side) for side in mask.shape]
        mask = np.pad(self.class_of_id[mask], missing, constant_values=IGNORE)
        return np.pad(picture, [*missing, (0, 0)], mode="symmetric"), mask


class SegmentationDataModule(LightningDataModule):
    """Batches from a ``PictureStore``; a data set says how its store is made and what its classes are.

    A batch has ``image``, float (B, in_channels, H, W) in [0, 1], and ``mask``, int64 (B, H, W), 255 where a pixel
    counts for nothing. Training pictures are random windows, changed at random; the others are whole.

    Args:
        crop: Height and width of a training window.
        batch_size: Pictures in a batch.
        max_side: Longer sides are scaled down to this many pixels, in training, measuring and predicting.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        flip: Whether training pictures are mirrored left to right at random.
    """

    def __init__(self, crop: int, batch_size: int, max_side: int, degrees: float, scale: float, flip: bool) -> None:
        super().__init__()
        self.crop, self.batch_size, self.max_side = crop, batch_size, max_side
        self.degrees, self.scale, self.flip = degrees, scale, flip
        self.restored_channels: int | None = None  # from a checkpoint: prediction needs no training data

    def build_store(self) -> Path:
        """Return the folder of the store, filled now or earlier."""
        raise UserError(f"{type(self).__name__} does not say where its pictures are")

    @cached_property
    def store(self) -> PictureStore:
        """The decoded pictures."""
        return PictureStore(self.build_store())

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, background first."""
        raise UserError(f"{type(self).__name__} does not name its classes")

    @property
    def class_of_id(self) -> np.ndarray:
        """Class of every id in a mask, uint8 (256,)."""
        return np.arange(256, dtype=np.uint8)

    @property
    def in_channels(self) -> int:
        """Channels of a picture: 1 where all pictures of the data set are grey, else 3."""
        return self.restored_channels or self.store.channels

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training pixels of every class."""
        pixels = self.store.counts[[part == "train" for part in self.store.parts]].sum(0)
        return [int(pixels[self.class_of_id == c].sum()) for c in range(self.num_classes)]

    def prepare_data(self) -> None:
        store = self.store
        for part in PARTS:
            if part not in store.parts:
                fault(f"{len(store.parts)} picture(s) leave none for {part}; at least three different ones are needed")
        present = np.stack([store.counts[:, self.class_of_id == c].any(1) for c in range(self.num_classes)], axis=1)
        in_train = np.array([part == "train" for part in store.parts])
        for c in np.flatnonzero(present.any(0) & ~present[in_train].any(0)):
            files = [store.names[i] for i in np.flatnonzero(present[:, c])]
            only = f"class {c} ({self.class_names[c]}) occurs only outside the training part, in {len(files)} mask(s)"
            fault(only, files)

    def __str__(self) -> str:
        store = self.store
        sizes = " / ".join(f"{store.parts.count(part):,} {part}" for part in PARTS)
        kind = "grey" if store.channels == 1 else "colour"
        skipped = f"; skipped {len(store.skipped)} broken: {some(store.skipped)}" if store.skipped else ""
        return f"{type(self).__name__}: {sizes} {kind} pictures, {self.num_classes} classes{skipped}"

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(SegmentationPictures(self.store, "train", self.class_of_id, self.crop), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return the whole pictures of a part in a fixed order, without random changes."""
        dataset = SegmentationPictures(self.store, part, self.class_of_id)
        return ordered(dataset, self.batch_size, dataset.sizes)

    def names(self, part: str) -> list[str]:
        """Return the mask of every picture of a part."""
        return [name for name, other in zip(self.store.names, self.store.parts, strict=True) if other == part]

    def predict_dataset(self, paths: list[Path]) -> UnlabelledPictures:
        """Return the user's picture files, and those below folders, as a data set for ``predict_step``."""
        prepare = partial(fitted, channels=self.in_channels, max_side=self.max_side)
        return UnlabelledPictures(find_pictures(paths), prepare)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        image, mask = batch["image"].float() / 255, batch["mask"].long()
        if self.trainer and self.trainer.training:
            generator = generator_for(batch["seed"], image.device)
            image = random_colour(image, generator)
            grid = random_grid(image, self.degrees, self.scale, self.flip, generator)
            image = warped(image, grid)
            mask = warped(mask[:, None].float(), grid, mode="nearest")[:, 0].long()
        return {"image": image, "mask": mask}

    def preparation(self) -> dict[str, Any]:
        how = "upright, by Pillow's BOX so that no side is longer than max_side; divided by 255"
        return {"kind": "limited", "how": how, "channels": self.in_channels, "max_side": self.max_side}

    def state_dict(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels, "max_side": self.max_side}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored_channels, self.max_side = state_dict["in_channels"], state_dict["max_side"]


class SegmentationFolderDataModule(SegmentationDataModule):
    """The user's own pictures and masks.

    The layout is ``root/{images,masks}/*`` or ``root/{train,val,test}/{images,masks}/*``; a mask has its picture's name
    but for the ending. A missing val or test part is split off the training part, a tenth each, by content. A mask is a
    picture of class ids in one channel or a palette. Where masks hold nothing but 0 and 255 these are the classes 0 and
    1; elsewhere 255 means ignored. Other files and folders are left alone.

    Args:
        root: The folder.
        class_names: Names of the classes from id 0 on; without them there are as many classes as ids.
        ignore_index: A further id that counts for nothing.
        crop: Height and width of a training window.
        batch_size: Pictures in a batch.
        max_side: Longer sides are scaled down to this many pixels.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        flip: Whether training pictures are mirrored left to right at random.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        ignore_index: int | None = None,
        crop: int = 128,
        batch_size: int = 16,
        max_side: int = 640,
        degrees: float = 10,
        scale: float = 0.25,
        flip: bool = True,
    ) -> None:
        super().__init__(crop, batch_size, max_side, degrees, scale, flip)
        self.root, self.given_names, self.ignore_index = Path(root), class_names, ignore_index

    def build_store(self) -> Path:
        return decoded("folder", find_pairs(self.root), self.max_side, self.root)

    @property
    def class_of_id(self) -> np.ndarray:
        classes = np.arange(256, dtype=np.uint8)
        if set(np.flatnonzero(self.store.counts.any(0)).tolist()) <= {0, IGNORE}:
            classes[IGNORE] = 1  # masks in black and white
        if self.ignore_index is not None:
            classes[self.ignore_index] = IGNORE
        return classes

    @property
    def class_names(self) -> list[str]:
        if self.given_names:
            return self.given_names
        classes = self.class_of_id[np.flatnonzero(self.store.counts.any(0))]
        highest = int(max(classes[classes != IGNORE], default=0))
        return ["background", "object"] if highest == 1 else [str(c) for c in range(highest + 1)]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` which pictures are of another kind than most; return also which files are not used."""
        pairs = find_pairs(self.root)
        unused = unused_files(self.root, [path for _, *both in pairs for path in both])
        kinds = kinds_of([picture for _, picture, _ in pairs])
        return {"kinds of files": kinds, "files that are neither pictures nor masks": unused}

    def prepare_data(self) -> None:
        beyond = self.store.counts[:, (self.class_of_id >= self.num_classes) & (self.class_of_id != IGNORE)].any(1)
        if beyond.any():
            files = [self.store.names[i] for i in np.flatnonzero(beyond)]
            fault(f"{len(files)} mask(s) hold ids beyond the {self.num_classes} classes", files)
        if self.num_classes < 2:
            fault(f"the masks in {self.root} hold one class only; at least two are needed")
        super().prepare_data()
