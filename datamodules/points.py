"""XOR: the four rows on which a single layer fails (Minsky and Papert 1969)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import ordered, shuffled
from datamodules.csv_files import MISSING
from datamodules.table_columns import HOW, Column, UnlabelledTables
from datamodules.user_files import find_files

ROWS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
LABELS = torch.tensor([0, 1, 1, 0])  # whether exactly one of both is 1
COLUMNS = [Column("a", median=0.0), Column("b", median=0.0)]  # of the user's files


class XorRows(Dataset[dict[str, Tensor]]):
    """The four rows, over and over, a whole batch at a time.

    A batch has ``features``, float (B, 2), and ``label``, int64 (B,).

    Args:
        repeats: How often each row comes.
    """

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats

    def __len__(self) -> int:
        return 4 * self.repeats

    def __getitems__(self, numbers: list[int]) -> dict[str, Tensor]:
        rows = torch.tensor(numbers) % 4
        return {"features": ROWS[rows], "label": LABELS[rows]}


class XorDataModule(LightningDataModule):
    """Exclusive or, as rows of two numbers and two classes.

    There are no other rows to measure on: training, validation and test part are the same four, and what is measured is
    whether a net can represent and find the function at all.

    Args:
        batch_size: Rows in a batch.
        repeats: How often each row comes in an epoch.
    """

    in_channels = 2
    num_classes = 2
    same_parts = True  # which check would take for a leak

    def __init__(self, batch_size: int = 4, repeats: int = 100) -> None:
        super().__init__()
        self.batch_size, self.repeats = batch_size, repeats

    @property
    def class_names(self) -> list[str]:
        """What the function returns."""
        return ["false", "true"]

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of both columns, (2,): zero and one, for the rows are used as they are."""
        return torch.zeros(2), torch.ones(2)

    def __str__(self) -> str:
        return "XorDataModule: the four rows of exclusive or, for training, validation and test alike"

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(XorRows(self.repeats), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return the four rows, whatever the part."""
        return ordered(XorRows(repeats=1), self.batch_size, shared=part != "train")

    def predict_dataset(self, paths: list[Path]) -> UnlabelledTables:
        """Return the user's CSV files with the columns ``a`` and ``b`` as a data set for ``predict_step``."""
        return UnlabelledTables(find_files(paths, "*.csv"), COLUMNS)

    def preparation(self) -> dict[str, Any]:
        return {
            "kind": "table",
            "how": HOW,
            "missing": list(MISSING),
            "columns": [asdict(column) for column in COLUMNS],
        }
