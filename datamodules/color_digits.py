"""ColorDigits: handwritten digits blended into photographs, a colour version of MNIST that needs no download.

Semi-synthetic, by the procedure of MNIST-M (Ganin et al. 2016, https://arxiv.org/abs/1505.07818): the absolute
difference of a digit and a patch of a photo, 32 x 32. The digits are those of MNIST-5k; the photographs come with
scikit-image and scikit-learn. Training, validation and test share neither digits nor photographs.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.augmentation import random_grid, warped
from datamodules.batches import generator_for
from datamodules.digits import PARTS as DIGITS
from datamodules.digits import load_digits
from datamodules.labelled_pictures import ClassificationDataModule, Pictures
from datamodules.sample_photos import PHOTOS, load_photo, patch
from engine.cache import cached

SIZE = 32
PATCHES = {"train": 12_000, "val": 2_000, "test": 2_000}  # validation and test show every digit on four of them


class DigitsOnPhotos(Dataset[dict[str, Any]]):
    """Training digits, each on another patch every time it is drawn, a whole batch at a time.

    A batch has ``digit``, uint8 (B, 1, 32, 32), ``photo``, uint8 (B, 3, 32, 32), ``label``, int64 (B,), and ``seed``, a
    number that no other batch of the training has.

    Args:
        digits: uint8 (N, 32, 32).
        labels: int64 (N,).
        patches: uint8 (M, 3, 32, 32).
    """

    def __init__(self, digits: np.ndarray, labels: np.ndarray, patches: np.ndarray) -> None:
        self.digits, self.labels, self.patches = digits, labels, patches

    def __len__(self) -> int:
        return len(self.digits)

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        rows = np.array(numbers) % len(self)  # see ShuffledEpochs
        drawn = torch.randint(len(self.patches), (len(rows),), generator=generator_for(numbers[0])).numpy()
        return {
            "digit": torch.from_numpy(self.digits[rows][:, None]),
            "photo": torch.from_numpy(self.patches[drawn]),
            "label": torch.from_numpy(self.labels[rows]),
            "seed": numbers[0],
        }


class ColorDigitsDataModule(ClassificationDataModule):
    """4,000 training digits, on other photo patches every epoch; for val and test 500 digits, each on four patches.

    Training digits are turned and scaled, the photo behind them is mirrored, and its channels change places or are
    inverted, all at random.

    Args:
        batch_size: Pictures in a batch.
        degrees: Largest random angle of a digit.
        scale: Largest random change of a digit's size, as a share of the size.
        num_train: Digits to train on, at most 4,000.
    """

    def __init__(self, batch_size: int = 64, degrees: float = 12, scale: float = 0.15, num_train: int = 4000) -> None:
        super().__init__(batch_size, degrees=degrees, scale=scale)
        self.num_train = num_train

    def load(self) -> Pictures:
        images, classes, parts = [], [], []
        for part, (digits, labels, patches) in self.sources.items():
            rows = np.arange(len(digits) if part == "train" else len(patches)) % len(digits)
            blended = np.abs(patches[: len(rows)].astype(np.int16) - digits[rows, None])
            images.append(blended.astype(np.uint8).transpose(0, 2, 3, 1))
            classes.append(labels[rows])
            parts += [part] * len(rows)
        return Pictures(np.concatenate(images), np.concatenate(classes), np.array(parts), list("0123456789"))

    @cached_property
    def sources(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Digits uint8 (N, 32, 32), their classes and photo patches uint8 (M, 3, 32, 32) of every part."""
        pixels, labels = load_digits()
        digits = np.pad(pixels, [(0, 0), (2, 2), (2, 2)])

        def build(folder: Path) -> None:
            for i, (part, count) in enumerate(PATCHES.items()):
                photos = [load_photo(name) for name in PHOTOS[part]]
                generator = torch.Generator().manual_seed(i)
                cut = torch.stack([patch(photos, SIZE, generator) for _ in range(count)])
                np.save(folder / f"{part}.npy", (cut * 255).round().byte().numpy())

        folder = cached("photo-patches", {"format": 1, "size": SIZE, "counts": PATCHES}, build)
        rows = DIGITS | {"train": slice(self.num_train)}
        return {part: (digits[r], labels[r], np.load(folder / f"{part}.npy")) for part, r in rows.items()}

    def train_dataset(self) -> Dataset[dict[str, Any]]:
        return DigitsOnPhotos(*self.sources["train"])

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if "photo" not in batch:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        digit, photo = batch["digit"].float() / 255, batch["photo"].float() / 255
        generator = generator_for(batch["seed"], digit.device)
        digit = warped(digit, random_grid(digit, self.degrees, self.scale, False, generator))
        photo = random_photo(photo, generator)
        return {"image": (photo - digit).abs(), "label": batch["label"]}


def random_photo(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Return patches (B, 3, H, W) in [0, 1] mirrored, inverted, and with their channels in another order, at random."""
    B = len(photo)
    order = torch.rand(B, 3, generator=generator, device=photo.device).argsort(1)
    photo = photo[torch.arange(B, device=photo.device)[:, None], order]
    mirrored, inverted = torch.rand(2, B, 1, 1, 1, generator=generator, device=photo.device) < 0.5
    photo = torch.where(mirrored, photo.flip(3), photo)
    return torch.where(inverted, 1 - photo, photo)
