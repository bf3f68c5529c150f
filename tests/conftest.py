"""Shared by all tests: the command as a user types it, in this process, and small data to feed it."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from engine.watch import Watch

os.environ.setdefault("WANDB_MODE", "disabled")  # tests that are about W&B say so themselves
torch.set_num_threads(1)  # the nets are tiny: threads only wait for each other

ROOT = Path(__file__).parent.parent
UNET = str(ROOT / "configs" / "unet.yaml")
SMALL = [
    "--model.net.width",
    "4",
    "--data.num_train",
    "64",
    "--trainer.max_epochs",
    "1",
    "--trainer.accelerator",
    "cpu",
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests build out of the user's cache, but share it between them."""
    os.environ.setdefault("TASKLIGHT_CACHE", str(tmp_path_factory.getbasetemp().parent / "cache"))
    yield


@pytest.fixture
def brief_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let translations be short: a net that has hardly learned never ends one."""
    monkeypatch.setattr("tasks.translation.LONGEST", (1, 4))


@pytest.fixture
def brief_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nets that judge enlarged photos learn from few batches, where it matters little what they say."""
    monkeypatch.setattr("tasks.adversarial_super_resolution.LESSON", 10)


@pytest.fixture
def tasklight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Return a function that types a command in an empty folder: (exit code, what it printed, its errors)."""
    from train import main

    monkeypatch.chdir(tmp_path)

    def type_command(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["train.py", *argv])
        try:
            code = main(list(argv))
        except SystemExit as stop:
            code = int(stop.code or 0)
        if wandb.run is not None:  # a training that failed leaves its run open
            wandb.finish()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return type_command


def terminate_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM arrive behind a step of a training."""
    hook = Watch.on_train_batch_end

    def stop(watch: Watch, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return hook(watch, trainer, pl_module, *rest)

    patch.setattr(Watch, "on_train_batch_end", stop)


def write_masked_pictures(folder: Path, count: int = 12, size: int = 48, seed: int = 0, grey: bool = False) -> None:
    """Write pictures of a bright square on dark noise, with masks of class 0 and 1, into images/ and masks/."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        top, left = rng.integers(0, size // 2, 2)
        mask = np.zeros((size, size), np.uint8)
        mask[top : top + size // 2, left : left + size // 2] = 1
        pixels = rng.integers(0, 90, (size, size, 3)) + 150 * mask[:, :, None]
        picture = Image.fromarray(pixels.astype(np.uint8))
        (picture.convert("L") if grey else picture).save(folder / "images" / f"{i:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i:02d}.png")


def write_class_folders(
    folder: Path, count: int = 20, size: int = 40, names: tuple[str, ...] = ("disc", "frame")
) -> None:
    """Write pictures of bright shapes on dark noise, a folder for each class; the i-th class has i + 1 shapes."""
    rng = np.random.default_rng(0)
    for shapes, name in enumerate(names, start=1):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 80, (size, size + 6, 3))
            for shape in range(shapes):
                top, left = rng.integers(0, size - 12, 2)
                pixels[top : top + 10, left : left + 10] = 250 - 100 * shape
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Return a folder of twelve pictures and masks in the layout of ``SegmentationFolderDataModule``."""
    write_masked_pictures(tmp_path / "squares")
    return tmp_path / "squares"
