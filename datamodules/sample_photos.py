"""The ten photographs that come with scikit-image and scikit-learn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

from datamodules.photos import PhotosDataModule
from datamodules.picture_files import fit_within, resized
from datamodules.picture_store import Sample, write_store
from engine.cache import cached

# No photograph is ever on two sides of the split.
PHOTOS = {
    "train": ["astronaut", "chelsea", "hubble_deep_field", "immunohistochemistry", "rocket", "stereo_motorcycle"],
    "val": ["coffee", "flower"],
    "test": ["china", "retina"],
}
TILE = 128  # side of the regions that a photo is cut into


def load_photo(name: str) -> Tensor:
    """Return a photograph of scikit-image or scikit-learn as (3, H, W) in [0, 1]."""
    photo = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(skimage_data, name)()
    left = photo[0] if isinstance(photo, tuple) else photo  # the stereo picture comes as a tuple
    return torch.from_numpy(left.copy()).permute(2, 0, 1) / 255


def patch(photos: list[Tensor], size: int, generator: torch.Generator) -> Tensor:
    """Return a square of a random photo, one to three times ``size`` wide there, as (3, size, size)."""
    photo = photos[int(torch.randint(len(photos), (), generator=generator))]
    height, width = photo.shape[1:]
    side = min(height, width, int(size * (1 + 2 * torch.rand((), generator=generator))))
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return F.interpolate(photo[None, :, top : top + side, left : left + side], (size, size), mode="area")[0]


class SamplePhotosDataModule(PhotosDataModule):
    """The ten photos, split by photo, or each of them cut into regions of 128 x 128 that are split.

    What a task has to know of the world, such as the colour of skin, it cannot learn from six photos for others; within
    the same photos it can be shown what there is to learn. Regions of one photo resemble each other, so a figure that
    is measured on them says nothing of other photos.

    Args:
        split: What stays on one side of the split.
        grey: Whether colours are left out.
        crop: Height and width of a training window.
        windows: Training windows in an epoch.
        batch_size: Windows in a batch.
        turn: Whether windows are turned by quarters and stood on their heads, besides being mirrored.
        max_side: Longer sides are scaled down to this many pixels.
    """

    def __init__(
        self,
        split: Literal["photos", "regions"] = "photos",
        grey: bool = False,
        crop: int = 64,
        windows: int = 8000,
        batch_size: int = 8,
        turn: bool = True,
        max_side: int = 512,
    ) -> None:
        super().__init__(grey, crop, windows, batch_size, turn)
        self.split, self.max_side = split, max_side

    def build_store(self) -> Path:
        def build(folder: Path) -> None:
            whole = photos(self.grey, self.max_side)
            write_store(folder, 1 if self.grey else 3, whole if self.split == "photos" else regions(whole), [])

        key = {"format": 1, "grey": self.grey, "split": self.split, "max_side": self.max_side, "tile": TILE}
        return cached("sample-photos", key, build)


def photos(grey: bool, max_side: int) -> Iterator[Sample]:
    """Yield the photos, scaled down, in their parts."""
    for part, names in PHOTOS.items():
        for name in names:
            pixels = (load_photo(name).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            pixels = resized(pixels, fit_within((pixels.shape[1], pixels.shape[0]), max_side), Image.Resampling.BOX)
            yield part, name, np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None] if grey else pixels, None


def regions(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Yield the regions of photos, of each an eighth for validation and an eighth for the test."""
    generator = np.random.default_rng(0)
    for _, name, pixels, _ in samples:
        places = [(y, x) for y in range(pixels.shape[0] // TILE) for x in range(pixels.shape[1] // TILE)]
        eighth = max(1, len(places) // 8)
        for i, place in enumerate(generator.permutation(len(places))):
            y, x = (TILE * step for step in places[place])
            part = "val" if i < eighth else "test" if i < 2 * eighth else "train"
            yield part, f"{name}-{y}-{x}", pixels[y : y + TILE, x : x + TILE], None
