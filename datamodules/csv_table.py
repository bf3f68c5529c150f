"""CSV files of any making, as cells of text and the numbers that they spell."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.errors import UserError, some

SEPARATORS = ",;\t|"
MISSING = ["", "na", "n/a", "nan", "null", "none", "?", "#n/a"]  # in any case
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")  # 0,5 and 1.234,5
THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")


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
    """Read a CSV file with a header.

    It may be in UTF-8, with or without a mark at the start, UTF-16 with its mark, or Windows-1252; columns are
    separated by commas, semicolons, tabs or bars. Where they are not separated by commas, a comma may be the decimal.

    Raises:
        UserError: It cannot be read, has no rows, or a row does not fit the header.
    """
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows, lines = [], []
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise UserError(f"{path} is empty")
    header = [name or f"column {i}" for i, name in enumerate(rows[0], 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path} has more than one column named {some(twice)}")
    if len(rows) == 1:
        raise UserError(f"{path} has a header, but no rows")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: there are {len(row)} cells, but {len(header)} in the header")
    cells = pd.DataFrame(rows[1:], columns=header, dtype=str)
    values = cells.apply(lambda column: numbers(column, comma=separator != ","))
    return Table(cells, values, np.array([f"{path}, line {line}" for line in lines[1:]]))


def decoded(content: bytes) -> str:
    """Return the text of a file in one of the encodings that spreadsheets write."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def numbers(cells: "pd.Series[str]", comma: bool) -> "pd.Series[float]":
    """Return the numbers that cells spell, NaN for all else, what 32 bits cannot hold included.

    Args:
        cells: The cells of a column.
        comma: Whether a comma may be the decimal.
    """
    if comma:
        decimal = cells.str.fullmatch(DECIMAL_COMMA)
        if decimal.any():  # then points part the thousands
            grouped = decimal | cells.str.fullmatch(THOUSANDS)
            cells = cells.where(~grouped, cells.str.replace(".", "").str.replace(",", "."))
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    return values.where(values.abs() <= np.finfo(np.float32).max)


def join(tables: list[Table]) -> Table:
    """Put tables of the same columns below each other."""
    cells = pd.concat([table.cells for table in tables], ignore_index=True)
    values = pd.concat([table.values for table in tables], ignore_index=True)
    return Table(cells, values, np.concatenate([table.places for table in tables]))
