"""Columns of a table: what the training rows say about each, and how rows of any file become features by it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.csv_table import Table, read_csv
from engine.errors import UserError, fault, some

FAULTY = 0.1  # share of text up to which a column still is one of numbers, with faults in it
MOST_CATEGORIES = 100  # of a column; rarer ones are taken for unknown
KINDS = ("number", "category")  # of columns that are used

# What ``encoded`` does, for programs that use an export.
HOW = (
    "for every column: of categories, 1 for the one of the cell, else 0; of numbers, the number, its median where the "
    "cell is missing; where there is a lowest, the root of the distance from it, at least 0; where it says missing, "
    "1 if the cell is, else 0. A cell is missing if it is one of those listed, in any case; commas separate cells"
)


@dataclass
class Column:
    """What the training rows say about a column of the file.

    Args:
        name: Name in the header.
        median: What stands for missing numbers; None for a column of categories.
        lowest: Smallest number; the root of the distance from it is a feature too, but for columns of two values.
        missing: Whether numbers are missing, so that a feature of its own says where.
        categories: The known categories, each a feature; the empty one stands for missing entries.
    """

    name: str
    median: float | None = None
    lowest: float | None = None
    missing: bool = False
    categories: list[str] = field(default_factory=list)

    @property
    def num_features(self) -> int:
        """Features that are made of the column."""
        return len(self.categories) if self.median is None else 1 + (self.lowest is not None) + self.missing


def kind_of(table: Table, name: str, is_target: bool) -> str:
    """Return what a column is taken for: ``number``, ``category``, or why it is left out, which no target is."""
    missing, wrong = table.missing(name), table.text(name).sum()
    entries = table.cells[name][~missing]
    kind = "number" if wrong < len(entries) and wrong <= max(1, FAULTY * len(entries)) else "category"
    if is_target:
        return kind
    if (np.diff(table.values[name]) == 1).all() and table.values[name].iloc[0] in (0, 1):
        return "row numbers"
    distinct = entries.nunique()
    if distinct + missing.any() < 2:
        return "the same everywhere"
    if kind == "category" and distinct > max(20, len(table) / 2):
        return "another text in almost every row"
    return kind


def column_of(table: Table, name: str, kind: str) -> Column:
    """Return what training rows say about a column of a kind."""
    missing = table.missing(name)
    if kind == "category":
        counts = table.cells[name].where(~missing, "").value_counts()
        return Column(name, categories=sorted(counts.index[:MOST_CATEGORIES]))
    values = table.values[name].dropna()
    median = float(values.median()) if len(values) else 0.0
    lowest = float(values.min()) if values.nunique() > 2 else None
    return Column(name, median, lowest, bool(missing.any()))


class UnlabelledTables(Dataset[dict[str, Any]]):
    """CSV files, prepared as the training rows were.

    A sample is a file: its ``path``, ``features``, float32 (N, num_features), and ``table``, the file as CSV text, with
    a further column ``note`` where a row has something unknown or missing. Files that do not fit are left out and named
    in ``skipped``.

    Args:
        paths: CSV files.
        columns: What the training rows have said.
    """

    def __init__(self, paths: list[Path], columns: list[Column]) -> None:
        self.samples: list[dict[str, Any]] = []
        self.skipped: list[str] = []
        for path in paths:
            try:
                table = read_csv(path)
                lacking = [column.name for column in columns if column.name not in table.cells]
                if lacking:
                    raise UserError(f"{path} has no column {some(lacking)}")
                features = torch.from_numpy(encoded(table, columns))
            except UserError as error:
                self.skipped.append(str(error))
                continue
            rows, noted = table.cells, notes(table, columns)
            if any(noted):
                rows = rows.assign(note=noted)
            self.samples.append({"path": str(path), "features": features, "table": rows.to_csv(index=False)})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples[index]


def encoded(table: Table, columns: list[Column]) -> np.ndarray:
    """Return the features of rows, float32 (N, num_features).

    Raises:
        UserError: There is text in a column of numbers.
    """
    features: list[np.ndarray] = []
    for column in columns:
        missing = table.missing(column.name)
        if column.median is None:
            cells = table.cells[column.name].where(~missing, "").to_numpy()
            features += [cells == category for category in column.categories]
        else:
            refuse_text(table, column.name)
            values = np.where(missing | table.text(column.name), column.median, table.values[column.name])
            features.append(values)
            if column.lowest is not None:
                features.append(np.sqrt(np.maximum(values - column.lowest, 0)))
            features += [missing] if column.missing else []
    return np.stack(features, axis=1).astype(np.float32)


def refuse_text(table: Table, column: str) -> None:
    """Tell by ``fault`` the cells of a column of numbers that are none."""
    wrong = np.flatnonzero(table.text(column))
    if len(wrong):
        cells = [f"{table.places[row]}: {table.cells[column].iloc[row]!r}" for row in wrong]
        fault(
            f"the column {column!r} holds numbers, but for {len(wrong)} cell(s); mend them, leave them empty, or take "
            f"the column for categories by --data.categories '[{column}]'",
            cells,
        )


def notes(table: Table, columns: list[Column]) -> list[str]:
    """Return for every row what in it is missing or unknown to the training."""
    said: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns:
        missing = table.missing(column.name)
        for row in np.flatnonzero(missing):
            said[row].append(f"{column.name} is missing")
        if column.median is None:
            unknown = ~missing & ~table.cells[column.name].isin(column.categories).to_numpy()
            for row in np.flatnonzero(unknown):
                said[row].append(f"{column.name} {table.cells[column.name].iloc[row]!r} is unknown")
    return ["; ".join(notes) for notes in said]
