"""Captchas drawn by the captcha library (https://github.com/lepture/captcha): nothing to download."""

import json
import random
from pathlib import Path
from unittest.mock import patch

import numpy as np
from captcha import image as drawing
from PIL import Image
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import whole_batch
from datamodules.captcha import CaptchaDataModule, Texts
from datamodules.captcha_files import stretched
from engine.cache import cached

CHARSET = "23456789abcdefghjkmnpqrstuvwxyz"  # without what looks like something else: 0 o, 1 i l
LENGTH = 5
COUNTS = {"val": 1000, "test": 1000}


class Draws(random.Random):
    """Random numbers that can be repeated, for the library, which asks ``secrets`` for them."""

    randbits = random.Random.getrandbits

    def randbelow(self, limit: int) -> int:
        """Return a whole number in [0, limit)."""
        return self.randrange(limit)


class Drawn(Dataset[tuple[str, np.ndarray]]):
    """Captchas, each drawn when it is asked for: its text, and the picture as uint8 (height, width).

    Args:
        part: ``train``, ``val`` or ``test``: each has captchas of its own.
        count: How many there are.
        size: (height, width) of a picture.
    """

    def __init__(self, part: str, count: int, size: tuple[int, int]) -> None:
        self.part, self.count, self.size = part, count, size
        self.artist = drawing.ImageCaptcha()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        draws = Draws(f"{self.part} {index}")
        text = "".join(draws.choices(CHARSET, k=LENGTH))
        with patch.object(drawing, "secrets", draws):
            picture: Image.Image = self.artist.generate_image(text)
        return text, stretched(picture, self.size)[:, :, 0]


class GeneratedCaptchaDataModule(CaptchaDataModule):
    """Captchas of five characters, drawn once and then kept; 1,000 each for validation and test.

    Args:
        height: Height at which pictures are used.
        width: Width at which pictures are used.
        batch_size: Pictures in a batch.
        degrees: Largest random angle.
        scale: Largest random change of size, as a share of the size.
        num_train: Captchas to train on.
    """

    def __init__(
        self,
        height: int = 48,
        width: int = 128,
        batch_size: int = 16,
        degrees: float = 0,
        scale: float = 0,
        num_train: int = 20_000,
    ) -> None:
        super().__init__(height, width, batch_size, degrees, scale)
        self.num_train = num_train

    def load(self) -> Texts:
        counts = {"train": self.num_train, **COUNTS}

        def build(folder: Path) -> None:
            pictures, texts = [], []
            for part, count in counts.items():
                # Worker processes, since drawing keeps Python busy.
                loader = DataLoader(Drawn(part, count, self.size), None, num_workers=2, collate_fn=whole_batch)
                for text, picture in track(loader, "drawing captchas", count, transient=True, disable=count < 500):
                    texts.append(text)
                    pictures.append(picture)
            np.save(folder / "images.npy", np.stack(pictures))
            (folder / "texts.json").write_text(json.dumps(texts))

        folder = cached("captchas", {"format": 1, "size": self.size, "counts": counts}, build)
        texts = json.loads((folder / "texts.json").read_text())
        return Texts(
            np.load(folder / "images.npy", mmap_mode="r"), texts, np.repeat(list(counts), list(counts.values()))
        )
