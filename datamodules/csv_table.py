"""Tables of text and numbers from one or several CSV files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules.csv_files import MISSING, CSVFile, numbers
from engine.errors import UserError, some


@dataclass
class Table:
    """Rows of one or several CSV files.

    Args:
        cells: The text of every cell, without the blanks around it.
        values: The number in every cell, NaN where there is none.
        places: File and line of every row.
    """

    cells: pd.DataFrame
    values: pd.DataFrame
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: np.ndarray) -> "Table":
        return Table(self.cells[rows], self.values[rows], self.places[rows])

    def missing(self, column: str) -> np.ndarray:
        """Return where a column has no entry, bool (N,)."""
        return self.cells[column].str.lower().isin(MISSING).to_numpy()

    def text(self, column: str) -> np.ndarray:
        """Return where the entry of a column is no finite number, bool (N,)."""
        return ~self.missing(column) & self.values[column].isna().to_numpy()


def read_csv(path: Path) -> Table:
    """Read a CSV file.

    Raises:
        UserError: It cannot be read, has no rows, or its columns cannot be told apart.
    """
    file = CSVFile(path)
    header = [name or f"column {i}" for i, name in enumerate(file.names, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path} has more than one column named {some(twice)}")
    cells = pd.DataFrame([[cell.strip() for cell in row] for row in file.rows], columns=header, dtype=str)
    values = cells.apply(lambda column: numbers(column, comma=file.separator != ","))
    return Table(cells, values, np.array([f"{path}, line {line}" for line in file.lines]))


def join(tables: list[Table]) -> Table:
    """Put tables of the same columns below each other."""
    cells = pd.concat([table.cells for table in tables], ignore_index=True)
    values = pd.concat([table.values for table in tables], ignore_index=True)
    return Table(cells, values, np.concatenate([table.places for table in tables]))
