"""Clean photographs, for tasks that spoil and restore them: any folder, and what all such data have in common."""

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from PIL import Image
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import random_symmetry
from datamodules.batches import generator_for, ordered, shuffled
from datamodules.picture_files import (
    BrokenPicture,
    UnlabelledPictures,
    find_pictures,
    fitted,
    is_grey,
    open_picture,
    to_array,
    upright,
)
from datamodules.picture_store import PARTS, PictureStore, Sample, refuse_many_broken, write_store
from engine.cache import cached
from engine.errors import UserError, some

MIDDLE = 128  # height and width of the windows that validate
FAINT = 8  # channels of a pixel that differ by no more, of 255, make no colour

File = tuple[str, Path]  # part, photo


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


class PhotosToRestore(UnlabelledPictures):
    """The user's photos at their own size, upright.

    A sample has ``image``, float (channels, H, W) in [0, 1], ``path``, and of a transparent picture ``alpha``, float
    (1, H, W) in [0, 1].

    Args:
        paths: Picture files.
        channels: 1 for grey, 3 for colour.
    """

    def __init__(self, paths: list[Path], channels: int) -> None:
        super().__init__(paths, partial(opaque, channels=channels))

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        picture = open_picture(self.paths[index])
        if picture.has_transparency_data:
            alpha = np.asarray(upright(picture).convert("RGBA").getchannel("A"))
            sample["alpha"] = torch.from_numpy(alpha.copy())[None] / 255
        return sample


def opaque(picture: Image.Image, channels: int) -> np.ndarray:
    """Return a photo upright, its transparency set aside, as uint8 (H, W, channels)."""
    picture = upright(picture)
    if picture.mode.startswith("I;16"):  # a photo's 16 bits have a white of their own
        picture = Image.fromarray((np.asarray(picture, np.float32) / 257).round().astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA").convert("RGB")
    return to_array(picture, channels)


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
                raise UserError(f"{count} photo(s) leave none for {part}; at least three different ones are needed")

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
        return ordered(dataset, self.batch_size, dataset.sizes)

    def predict_dataset(self, paths: list[Path]) -> PhotosToRestore:
        """Return the user's picture files, and those below folders, as a data set for ``predict_step``."""
        return PhotosToRestore(find_pictures(paths), self.in_channels)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if "path" in batch:  # a prediction
            return batch
        image = batch["image"].float() / 255
        if self.trainer and self.trainer.training:
            image = random_symmetry(image, self.turn, generator_for(batch["seed"], image.device))
        return {"image": image}

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

    def build_store(self) -> Path:
        if not self.root.is_dir():
            raise UserError(f"{self.root} is not a folder")
        folders = {part: self.root / part for part in PARTS if (self.root / part).is_dir()} or {"train": self.root}
        if "train" not in folders:
            raise UserError(f"{self.root} has no folder 'train' beside {some(sorted(folders))}")
        files = [(part, path) for part, folder in folders.items() for path in find_pictures([folder])]
        if not files:
            raise UserError(f"{self.root} holds no pictures")
        return decoded_photos(files, self.grey, self.max_side, self.root)


def decoded_photos(files: list[File], grey: bool, max_side: int, root: Path) -> Path:
    """Decode photos into a cached folder for ``PictureStore``.

    Args:
        files: Part and path of every photo.
        grey: Whether colours are left out.
        max_side: Longer sides are scaled down to this many pixels.
        root: Folder that the names in messages are relative to.

    Raises:
        UserError: Too many files are broken.
    """

    def build(folder: Path) -> None:
        skipped: list[str] = []
        channels = 1 if grey or not any(is_colourful(path) for _, path in files) else 3
        write_store(folder, channels, decode(files, channels, max_side, root, skipped), skipped)

    stats = [(part, str(path), path.stat()) for part, path in files]
    listing = [(part, path, stat.st_size, stat.st_mtime_ns) for part, path, stat in stats]
    return cached("photos", {"format": 1, "grey": grey, "max_side": max_side, "files": listing}, build)


def decode(files: list[File], channels: int, max_side: int, root: Path, skipped: list[str]) -> Iterator[Sample]:
    """Yield the photos that can be read and add the names of the others to ``skipped``."""
    for part, path in track(files, "reading pictures", transient=True, disable=len(files) < 100):
        name = str(path.relative_to(root))
        try:
            yield part, name, fitted(open_picture(path), channels, max_side), None
        except BrokenPicture as error:
            skipped.append(f"{name} ({error})")
    refuse_many_broken(skipped, len(files), root)


def is_colourful(path: Path) -> bool:
    """Tell whether a picture has colours, which one saved in colour need not; a broken file has none."""
    try:
        if is_grey(path):
            return False
        pixels = np.asarray(open_picture(path).convert("RGB").resize((64, 64)), np.int16)
    except BrokenPicture:
        return False
    return bool((np.ptp(pixels, axis=2) > FAINT).any())
