"""Labelled pictures that the field compares itself on, through torchvision, which downloads them at the first use.

MNIST (LeCun et al. 1998), FashionMNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747, MIT licence), CIFAR-10 and
CIFAR-100 (Krizhevsky 2009).
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchvision import datasets

from datamodules.digits import like_mnist
from datamodules.labelled_pictures import ClassificationDataModule, Pictures
from datamodules.picture_files import UnlabelledPictures, find_pictures
from datamodules.picture_store import split_by_content
from engine.errors import UserError


class TorchvisionDataModule(ClassificationDataModule):
    """MNIST, FashionMNIST, CIFAR-10 or CIFAR-100 on the official split; a tenth of the training part validates.

    Args:
        name: The data set.
        root: Folder to download to, or that holds the data set already.
        batch_size: Pictures in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        shift: Largest random shift in pixels.
        flip: Whether training pictures are mirrored left to right at random.
        cutout: Side in pixels of a square that is painted grey, 0 for none.
    """

    def __init__(
        self,
        name: Literal["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"],
        root: str = "data",
        batch_size: int = 64,
        degrees: float = 0,
        scale: float = 0,
        shift: int = 0,
        flip: bool = False,
        cutout: int = 0,
    ) -> None:
        super().__init__(batch_size, degrees, scale, shift, flip, cutout)
        self.which, self.root = name, Path(root)

    def load(self) -> Pictures:
        kind = getattr(datasets, self.which)
        try:
            sources: list[Any] = [kind(str(self.root), train=train, download=True) for train in (True, False)]
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.which} could not be downloaded to {self.root}: {error}") from error
        images = np.concatenate([np.asarray(source.data) for source in sources])
        labels = np.concatenate([np.asarray(source.targets) for source in sources]).astype(np.int64)
        given = [part for part, source in zip(("train", "test"), sources, strict=True) for _ in source.targets]
        hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        parts = split_by_content(given, hashes, np.eye(len(sources[0].classes), dtype=bool)[labels])
        images = images.reshape(*images.shape[:3], -1)  # grey ones lack the axis of channels
        return Pictures(images, labels, np.array(parts), [name.split(" - ")[0] for name in sources[0].classes])

    def predict_dataset(self, paths: list[Path]) -> UnlabelledPictures:
        if self.which == "MNIST":
            return UnlabelledPictures(find_pictures(paths), like_mnist)
        return super().predict_dataset(paths)
