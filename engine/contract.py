"""What the engine asks of a task and of data beyond what Lightning asks."""

from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import LightningDataModule
from torch import Tensor

Example = dict[str, tuple[str, Tensor]]  # inputs by name: a letter for every axis, as in CONTRIBUTING.md, and values


class Task(Protocol):
    """What every class in ``tasks/`` has besides the members of a LightningModule.

    A task may also have ``monitor``, the name of what chooses the best checkpoint in the place of ``val/<primary>``; it
    is None where no held-out data may choose, and the last is the best.

    What only the task knows of its ailments it may tell the doctor: ``ailments(values)`` gets the newest values under
    their logged names, ``train/`` and ``val/``, and returns what is wrong, as names and lines. ``least_skill`` is the
    skill, 0.05 without it, below which a training is called no better than its baseline.

    Its ``predict_step`` returns a record for every input of the batch: its ``path``, and pictures, texts or numbers
    under names of the task's choice.

    ``export`` writes down its ``forward``, or the method that ``exports`` names where that is not yet what a program
    asks for.

    Attributes:
        primary: Name of the metric by which the best checkpoint is chosen, logged as ``val/<primary>`` and
            ``test/<primary>``.
        perfect: Value that the metric cannot pass: 1 for accuracies, 0 for errors, infinity for decibels.
        net: The network.
    """

    primary: str
    perfect: float
    net: Any

    def example(self, datamodule: LightningDataModule) -> Example:
        """Return two inputs such as the exported method takes, with values that it may get."""

    def baseline(self, datamodule: LightningDataModule) -> dict[str, float]:
        """Return what a naive method reaches on the test part, under the keys of the task's own metrics."""

    def references(self, datamodule: LightningDataModule) -> dict[str, dict[str, float]]:
        """Return the same for stronger methods, by their names."""


class Predictable(Protocol):
    """What every class in ``datamodules/`` has besides the members of a LightningDataModule.

    Those of texts also have ``predict_prompts``, which takes what was typed behind ``--prompt`` in the place of files.
    """

    def predict_dataset(self, paths: list[Path]) -> "Inputs":
        """Return the user's files, prepared like the training data; touches no training data."""

    def in_order(self, part: str) -> Any:
        """Return batches of a part in a fixed order, without random changes.

        For ``check`` there may also be ``samples``, the same of whole samples where ``in_order`` gives pieces;
        ``names``, where every sample of a part is from; and ``examine``, which tells by ``engine.errors.note`` what
        only this kind of data can have, and returns lines to be shown, under headings; under ``leaks?`` what leaks it
        has looked for. What is wrong with data is told by ``engine.errors.fault`` wherever it is met.
        """

    def preparation(self) -> dict[str, Any]:
        """Return what ``predict_dataset`` does to a file, for programs that use an export.

        It has a ``kind``, how it is done in words (``how``), and the numbers of it.
        """


class Inputs(Protocol):
    """A data set of the user's files; ``skipped`` names those that cannot be read."""

    skipped: list[str]

    def __len__(self) -> int:
        """Return the number of inputs."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an input with its ``path``."""
