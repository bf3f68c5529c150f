"""The Oxford-IIIT Pet data set: cats and dogs of 37 breeds (CC BY-SA 4.0).

https://www.robots.ox.ac.uk/~vgg/data/pets/, Parkhi et al. 2012.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from torchvision.datasets import OxfordIIITPet

from datamodules.masked_pictures import Pair, decoded
from datamodules.segmentation import IGNORE, SegmentationDataModule
from engine.errors import UserError

PET, BACKGROUND, BORDER = 1, 2, 3  # ids in the data set's own masks


class OxfordPetsDataModule(SegmentationDataModule):
    """Pet against background on the official split; a tenth of trainval, by content, is the validation part.

    Args:
        root: Folder to download to, or that holds ``oxford-iiit-pet`` already.
        border: What the masks' narrow border around the pet counts as: ``pet`` (as in the published figures that we
            compare with), ``class`` (a third class) or ``ignore``.
        crop: Height and width of a training window.
        batch_size: Pictures in a batch.
        max_side: Longer sides are scaled down to this many pixels.
    """

    def __init__(
        self,
        root: str = "data",
        border: Literal["pet", "class", "ignore"] = "pet",
        crop: int = 128,
        batch_size: int = 16,
        max_side: int = 160,
    ) -> None:
        super().__init__(crop, batch_size, max_side, degrees=10, scale=0.25, flip=True)
        self.root, self.border = Path(root), border

    def build_store(self) -> Path:
        try:
            OxfordIIITPet(str(self.root), target_types="segmentation", download=True)  # only what is not there yet
        except (OSError, RuntimeError) as error:
            raise UserError(f"the Oxford-IIIT Pet data set could not be downloaded to {self.root}: {error}") from error
        base = self.root / "oxford-iiit-pet"
        pairs: list[Pair] = []
        for part, listing in (("train", "trainval.txt"), ("test", "test.txt")):
            for line in (base / "annotations" / listing).read_text().splitlines():
                name = line.split()[0]
                pairs.append((part, base / "images" / f"{name}.jpg", base / "annotations" / "trimaps" / f"{name}.png"))
        return decoded("oxford-pets", pairs, self.max_side, base)

    @property
    def class_names(self) -> list[str]:
        return ["background", "pet", "border"] if self.border == "class" else ["background", "pet"]

    @property
    def class_of_id(self) -> np.ndarray:
        classes = np.full(256, IGNORE, dtype=np.uint8)
        classes[PET], classes[BACKGROUND] = 1, 0
        classes[BORDER] = {"pet": 1, "class": 2, "ignore": IGNORE}[self.border]
        return classes
