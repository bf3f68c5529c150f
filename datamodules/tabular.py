"""Tables: the user's own CSV files, and what all tables have in common."""

import difflib
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import ordered, shuffled
from datamodules.csv_files import MISSING
from datamodules.csv_table import Table, join, read_csv
from datamodules.picture_store import PARTS, split_by_content
from datamodules.table_columns import (
    HOW,
    KINDS,
    Column,
    UnlabelledTables,
    column_of,
    encoded,
    kind_of,
    notes,
    refuse_text,
)
from datamodules.table_leaks import columns_that_say_target
from datamodules.user_files import find_files
from engine.errors import UserError, fault, note, some

MEASURED = 8192  # rows in a batch that is not trained on


class Rows(Dataset[dict[str, Any]]):
    """Rows of a table, a whole batch at a time.

    A batch has ``features``, float32 (B, num_features), and ``target``, float32 (B, 1), or ``label``, int64 (B,).

    Args:
        tensors: The same of all rows.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["features"])

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        rows = torch.tensor(indices) % len(self)  # see ShuffledEpochs
        return {name: values[rows] for name, values in self.tensors.items()}


class TabularDataModule(LightningDataModule):
    """Batches of rows; a data set says what its table is.

    A batch has ``features``, float32 (B, num_features), and ``target``, float32 (B, 1), where the target is a number,
    or ``label``, int64 (B,), where it is a class. A column of numbers is two features, the number and the root of its
    distance from the smallest one, which spreads the many small values of a skewed column. Where an entry is missing
    they are those of the median, and a third feature says so, if training rows lack any. A column of text is a feature
    for every category; an unknown category is none of them. All this is learned from the training rows alone.

    Args:
        target: Name of the column that is asked for.
        batch_size: Rows in a batch.
        categories: Columns that are categories though they hold numbers; the target too may be one.
        ignore: Columns to leave out.
    """

    def __init__(
        self, target: str, batch_size: int, categories: Iterable[str] = (), ignore: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.target, self.batch_size = target, batch_size
        self.categories, self.ignore = list(categories), list(ignore)
        self.restored: list[Column] = []  # from a checkpoint: prediction needs no training data

    def read(self) -> tuple[Table, list[str]]:
        """Return all rows, and the part that each belongs to."""
        raise UserError(f"{type(self).__name__} does not say where its rows are")

    def split(self, parts: list[str], hashes: list[str], present: np.ndarray) -> list[str]:
        """Return the part of every row, with the missing ones split off.

        Args:
            parts: Part of every row, as it is given.
            hashes: Hash of every row's content, the target left out.
            present: Whether a row has a class, (N, classes).
        """
        return split_by_content(parts, hashes, present)

    @cached_property
    def source(self) -> tuple[Table, list[str], list[str]]:
        """All rows that have a target, the part that each is given in, and where the rows are that have none."""
        table, parts = self.read()
        for name in (self.target, *self.categories, *self.ignore):
            if name not in table.cells:
                close = difflib.get_close_matches(name, list(table.cells), n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise UserError(f"{file_of(table)} has no column {name!r}, but {some(list(table.cells), 12)}{hint}")
        known = ~table.missing(self.target)
        if known.sum() < len(PARTS):
            raise UserError(
                f"{file_of(table)} has {known.sum()} row(s) with a {self.target!r}, too few to train, validate and test"
            )
        kept = [part for part, there in zip(parts, known, strict=True) if there]
        return table[known], kept, table.places[~known].tolist()

    @cached_property
    def kinds(self) -> dict[str, str]:
        """What every column is taken for: ``number``, ``category``, or why it is left out."""
        table, _, _ = self.source
        told = dict.fromkeys(self.categories, "category") | dict.fromkeys(self.ignore, "as told")
        return {name: told.get(name) or kind_of(table, name, name == self.target) for name in table.cells}

    @cached_property
    def parts(self) -> np.ndarray:
        """Part of every row."""
        table, parts, _ = self.source
        kept = [name for name, kind in self.kinds.items() if kind in KINDS and name != self.target]
        if not kept:
            raise UserError(f"{file_of(table)} has no column to tell {self.target!r} by")
        hashes = [sha256("\x1f".join(row).encode()).hexdigest() for row in table.cells[kept].itertuples(index=False)]
        present = self._labels()[:, None] == np.arange(max(1, len(self._classes)))
        return np.array(self.split(parts, hashes, present))

    @cached_property
    def _classes(self) -> list[str]:
        """The entries of a target of classes, in order; none where it is a number."""
        table, _, _ = self.source
        if self.kinds[self.target] == "number":
            return []
        values = dict(zip(table.cells[self.target], table.values[self.target], strict=True))
        return sorted(values, key=lambda text: (np.nan_to_num(values[text], nan=np.inf), text))

    def _labels(self) -> np.ndarray:
        """Return the class of every row, 0 for all where the target is a number."""
        table, _, _ = self.source
        number = {text: i for i, text in enumerate(self._classes)}
        return np.array([number.get(text, 0) for text in table.cells[self.target]])

    @property
    def columns(self) -> list[Column]:
        """What the training rows say about every column that is used."""
        return self.restored or self._columns

    @cached_property
    def _columns(self) -> list[Column]:
        table, _, _ = self.source
        table, kinds = table[self.parts == "train"], self.kinds.items()
        return [column_of(table, name, kind) for name, kind in kinds if name != self.target and kind in KINDS]

    @property
    def num_features(self) -> int:
        """Numbers in a row."""
        return sum(column.num_features for column in self.columns)

    @property
    def in_channels(self) -> int:
        """The same, for nets that call it so."""
        return self.num_features

    @property
    def num_outputs(self) -> int:
        """Numbers to predict for a row."""
        if self._classes:
            raise UserError(
                f"the target {self.target!r} holds text such as {some(self._classes)}, but a number is to be predicted"
            )
        return 1

    @property
    def class_names(self) -> list[str]:
        """The classes of the target."""
        if not self._classes:
            raise UserError(
                f"the target {self.target!r} holds numbers; if they stand for classes, say so: "
                f"--data.categories '[{self.target}]'"
            )
        return self._classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def features_of(self) -> dict[str, list[int]]:
        """The features that are made of every column, by its name."""
        ends = np.cumsum([column.num_features for column in self.columns]).tolist()
        return {
            column.name: list(range(end - column.num_features, end))
            for column, end in zip(self.columns, ends, strict=True)
        }

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every feature over the training rows, each (num_features,)."""
        features = self.rows("train")["features"].double()
        deviation = features.std(0, correction=0)
        return features.mean(0).float(), deviation.where(deviation > 0, 1).float()

    def rows(self, part: str) -> dict[str, Tensor]:
        """Return all rows of a part as one batch.

        Args:
            part: ``train``, ``val`` or ``test``.
        """
        here = self.parts == part
        table = self.source[0][here]
        features = torch.from_numpy(encoded(table, self.columns))
        if self._classes:
            return {"features": features, "label": torch.from_numpy(self._labels()[here])}
        target = table.values[self.target].to_numpy(np.float32)
        return {"features": features, "target": torch.from_numpy(target.copy())[:, None]}

    def prepare_data(self) -> None:
        table, _, _ = self.source
        for name, kind in self.kinds.items():
            if kind == "number":
                refuse_text(table, name)
        fewest = 1 if self._classes else 2  # there is no R2 of a single number
        for part in PARTS:
            if (self.parts == part).sum() < fewest:
                fault(f"{len(table)} row(s) of {file_of(table)} leave fewer than {fewest} for {part}")
        in_train = table.cells[self.target][self.parts == "train"]
        if in_train.nunique() < 2:
            fault(f"the target {self.target!r} is {in_train.iloc[0]} in every training row")
        for name in self._classes:
            if name not in set(in_train):
                places = table.places[(table.cells[self.target] == name).to_numpy()].tolist()
                fault(f"the class {name!r} occurs only outside the training part", places)

    def __str__(self) -> str:
        table, given, dropped = self.source
        sizes = " / ".join(f"{int((self.parts == part).sum()):,} {part}" for part in PARTS)
        said = [f"{sizes} rows, {self.num_features} features of {len(self.columns)} columns, target {self.target}"]
        if self._classes:
            said[0] += f" of {len(self._classes)} classes"
        split = [part for part in PARTS if part not in given]
        if split:
            said.append(f"{' and '.join(split)} split off by content")
        gaps = {column.name: int(table.missing(column.name).sum()) for column in self.columns}
        gaps = {name: count for name, count in gaps.items() if count}
        if gaps:
            listed = [f"{count:,} of {name}" for name, count in gaps.items()]
            said.append(f"missing: {some(listed, 8)}, numbers taken for the median of the training rows and marked")
        noted = [note for note in notes(table, self.columns) if "unknown" in note]
        if noted:
            said.append(f"{len(noted):,} rows have a category that is unknown to training: {some(noted)}")
        out = [f"{name} ({kind})" for name, kind in self.kinds.items() if kind not in KINDS]
        if out:
            said.append(f"left out: {some(out, 8)}")
        if dropped:
            said.append(f"dropped {len(dropped):,} rows without a target")
        return f"{type(self).__name__}: {'; '.join(said)}"

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(Rows(self.rows("train")), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order."""
        return ordered(Rows(self.rows(part)), MEASURED, shared=part != "train")

    @property
    def feature_names(self) -> list[str]:
        """Name of every feature."""
        names = []
        for column in self.columns:
            root = [f"root of {column.name}"] if column.lowest is not None else []
            gap = [f"{column.name} is missing"] if column.missing else []
            kinds = [f"{column.name} = {category or '(missing)'}" for category in column.categories]
            names += kinds if column.median is None else [column.name, *root, *gap]
        return names

    def names(self, part: str) -> list[str]:
        """Return file and line of every row of a part."""
        return self.source[0].places[self.parts == part].tolist()

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` what is missing, unknown, or says the target by itself; return what every column is."""
        table, _, dropped = self.source
        if dropped:
            note(f"{len(dropped)} row(s) without a {self.target!r} are left out", dropped)
        lines = []
        for name, kind in self.kinds.items():
            missing = table.missing(name)
            if missing.any() and kind in KINDS:
                share = f"{missing.sum():,} of {len(table):,}"
                note(f"the column {name!r} lacks {share} entries; the median stands for them", table.places[missing])
            values = table.values[name]
            spread = f", {values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g}" if kind == "number" else ""
            used = "the target, " if name == self.target else "left out, " if kind not in KINDS else ""
            lines.append(
                f"{name}: {used}{kind}{spread}, {table.cells[name].nunique():,} different, {missing.sum():,} missing"
            )
        noted = zip(table.places, notes(table, self.columns), strict=True)
        unknown = [f"{place}: {said}" for place, said in noted if "unknown" in said]
        if unknown:
            note(f"{len(unknown)} row(s) have a category that the training part lacks", unknown)
        target = self._labels() if self._classes else table.values[self.target].to_numpy()
        for name in columns_that_say_target(table, self.columns, target, bool(self._classes), self.parts == "train"):
            note(
                f"the column {name!r} says the target {self.target!r} by itself; if it is not known before the target "
                f"is, leave it out by --data.ignore '[{name}]'",
                broken=True,
            )
        whole = table.values[self.target].dropna()
        if self.kinds[self.target] == "number" and whole.nunique() <= 10 < len(whole) and (whole % 1 == 0).all():
            note(
                f"the target {self.target!r} has {whole.nunique()} different values, all whole; if they are classes, "
                f"take --config configs/xor.yaml and --data.categories '[{self.target}]'"
            )
        return {"columns": lines, "leaks?": ["columns that say the target by themselves"]}

    def predict_dataset(self, paths: list[Path]) -> UnlabelledTables:
        """Return the user's CSV files, and those in folders, as a data set for ``predict_step``."""
        return UnlabelledTables(find_files(paths, "*.csv"), self.columns)

    def preparation(self) -> dict[str, Any]:
        return {
            "kind": "table",
            "how": HOW,
            "missing": list(MISSING),
            "columns": [asdict(column) for column in self.columns],
        }

    def state_dict(self) -> dict[str, Any]:
        return {"columns": [asdict(column) for column in self.columns]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = [Column(**column) for column in state_dict["columns"]]


class TabularCSVDataModule(TabularDataModule):
    """The user's own table: a CSV file, or a folder with ``train.csv`` and perhaps ``val.csv`` and ``test.csv``.

    The first line names the columns. A missing val or test part is split off the training part, a tenth each, by
    content: rows that differ in nothing but the target stay on one side. Rows without a target are left out, and so are
    columns that are the same everywhere, count the rows, or hold another text in almost every row.

    Args:
        root: The file or the folder.
        target: Name of the column to predict: a number, or a class.
        batch_size: Rows in a batch.
        categories: Columns that are categories though they hold numbers; name the target here for classes 0, 1, ...
        ignore: Columns to leave out.
    """

    def __init__(
        self,
        root: str,
        target: str,
        batch_size: int = 256,
        categories: list[str] | None = None,
        ignore: list[str] | None = None,
    ) -> None:
        super().__init__(target, batch_size, categories or (), ignore or ())
        self.root = Path(root)

    def read(self) -> tuple[Table, list[str]]:
        if self.root.is_file():
            table = read_csv(self.root)
            return table, ["train"] * len(table)
        if not (self.root / "train.csv").is_file():
            raise UserError(f"{self.root} is neither a CSV file nor a folder with a train.csv")
        files = [self.root / f"{part}.csv" for part in PARTS]
        tables = {path: read_csv(path) for path in files if path.is_file()}
        names = list(tables[files[0]].cells)
        for path, table in tables.items():
            lacking = [name for name in names if name not in table.cells]
            if lacking:
                raise UserError(f"{path} has no column {some(lacking)}, but {files[0]} has")
            tables[path] = Table(table.cells[names], table.values[names], table.places)
        return join(list(tables.values())), [path.stem for path, table in tables.items() for _ in range(len(table))]


def file_of(table: Table) -> str:
    """Return the first of the files that a table is from."""
    return str(table.places[0]).rpartition(", line ")[0]
