"""For each recipe, what the promises need to be proved quickly: small settings, own data, inputs, a second opinion."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from conftest import write_masked_pictures
from PIL import Image


@dataclass
class Recipe:
    """How to prove a recipe's promises in seconds.

    Args:
        small: Flags that make it train in seconds.
        by_heart: Flags with which the training data are one batch, and enough epochs to know it by heart.
        own: Writes data into a folder and returns the flags that a user types to train on them.
        inputs: Writes files into a folder and returns what ``--input`` gets; predictions are named after their stems.
        outputs: Endings of the files that a prediction writes for each input.
        baseline: The test metric of the baseline for the small settings, computed another way.
        public: Add-on config of a public data set, and what lays it out in a folder and returns further flags.
    """

    small: list[str]
    by_heart: list[str]
    own: Callable[[Path], list[str]]
    inputs: Callable[[Path], list[str]]
    outputs: tuple[str, ...]
    baseline: Callable[[], float]
    public: dict[str, Callable[[Path], list[str]]]


def own_masks(folder: Path) -> list[str]:
    write_masked_pictures(folder)
    return ["--data", "datamodules.segmentation.SegmentationFolderDataModule", "--data.root", str(folder)]


def two_pictures(folder: Path) -> list[str]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("small", (20, 31)), ("large", (90, 70))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return [str(folder)]


def all_background() -> float:
    from datamodules.digit_scenes import DigitScenesDataModule

    store = DigitScenesDataModule(num_train=160).store
    counts = store.counts[[part == "test" for part in store.parts]].sum(0)
    return counts[0] / counts.sum() / (counts > 0).sum()


def oxford_pets(folder: Path) -> list[str]:
    """Write a few pictures in the layout of the Oxford-IIIT Pet download."""
    base = folder / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    (base / "images").mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("trainval", 20), ("test", 5)):
        names = [f"{part}_Cat_{i}" for i in range(count)]
        (base / "annotations" / f"{part}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
        for name in names:
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(base / "images" / f"{name}.jpg")
            trimap = rng.integers(1, 4, (40, 50)).astype(np.uint8)
            Image.fromarray(trimap).save(base / "annotations" / "trimaps" / f"{name}.png")
    return ["--data.root", str(folder)]


def random_walk(rows: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(np.random.default_rng(seed).normal(0, 0.02, rows).cumsum())


def own_series(folder: Path) -> list[str]:
    """Write a month-long hourly series with names of its own."""
    folder.mkdir()
    times = np.datetime64("2024-01-31T00:00:00") + np.arange(700) * np.timedelta64(1, "h")
    rows = [f"{time};{value:.3f}".replace(".", ",") for time, value in zip(times, random_walk(700), strict=True)]
    (folder / "load.csv").write_text("\n".join(["hour;load", *rows]))
    data = ["--data", "datamodules.timeseries.TimeSeriesCSVDataModule", "--data.target", "load", "--data.time", "hour"]
    return [*data, "--data.root", str(folder / "load.csv")]


def daily_prices(folder: Path, rows: int = 400) -> list[str]:
    """Write a CSV in the layout of the usual sites."""
    folder.mkdir()
    days = np.busday_offset("2020-01-01", np.arange(rows), roll="forward")
    lines = ["Date,Open,High,Low,Close,Adj Close,Volume"]
    for day, price in zip(days, random_walk(rows), strict=True):
        lines.append(f"{day},{price:.6f},{1.01 * price:.6f},{0.99 * price:.6f},{price:.6f},{0.9 * price:.6f},1000")
    (folder / "prices.csv").write_text("\n".join(lines) + "\n")
    return ["--data.root", str(folder / "prices.csv")]


def two_tickers(folder: Path) -> list[str]:
    daily_prices(folder, rows=40)
    (folder / "prices.csv").rename(folder / "other.csv")
    (folder / "prices.csv").write_text((folder / "other.csv").read_text())
    return [str(folder)]


def stocks(small: list[str], by_heart: list[str]) -> Recipe:
    return Recipe(
        small=small,
        by_heart=["--data.stride", "100", *by_heart],  # 19 windows
        own=own_series,
        inputs=two_tickers,
        outputs=("_forecast.csv", "_picture.png"),
        baseline=lambda: 1.0,  # persistence relative to itself
        public={"data_daily_prices": daily_prices},
    )


RECIPES = {
    "stock_linear": stocks(["--model.loss", "mae"], ["--trainer.max_epochs", "20", "--model.optimizer.lr", "0.03"]),
    "stock_rnn": stocks(
        ["--model.net.width", "4"],
        ["--model.net.width", "32", "--trainer.max_epochs", "4", "--model.optimizer.lr", "0.01"],
    ),
    "unet": Recipe(
        small=["--model.net.width", "4", "--data.num_train", "160"],
        by_heart=["--data.num_train", "16", "--trainer.max_epochs", "200", "--model.net.width", "16"],
        own=own_masks,
        inputs=two_pictures,
        outputs=("_mask.png", "_overlay.png"),
        baseline=all_background,
        public={"data_oxford_pets": oxford_pets},
    ),
}
