"""CSV files as people have them: any usual encoding and separator, every fault named by file, line and column."""

import csv
import difflib
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from engine.errors import UserError, fault, note, some

SEPARATORS = ",;\t|"
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "?", "#n/a")  # in any case
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")  # 0,5 and 1.234,5
THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")


class CSVFile:
    """The cells of a file with a header; lines before it that start with ``#`` are comments.

    UTF-8 with or without a byte order mark, UTF-16 with one, and Windows-1252 are understood, and commas, semicolons,
    tabs and bars between cells.

    Args:
        path: The file.
        quoted: Whether cells may be in quotes, within which separators and line ends belong to them.

    Raises:
        UserError: The file does not exist, has no rows, or a row has another number of cells than the header.
    """

    def __init__(self, path: Path, quoted: bool = True) -> None:
        self.path = path
        lines = list(io.StringIO(read_text(path), newline=""))
        skipped = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
        header = lines[skipped] if skipped < len(lines) else ""
        self.separator = max(SEPARATORS, key=header.count)
        rows = lines[skipped:]
        if quoted:
            reader = csv.reader(rows, delimiter=self.separator)
        else:
            reader = csv.reader(rows, delimiter=self.separator, quoting=csv.QUOTE_NONE)
        self.names = [name.strip() for name in next(reader, [])]
        self.rows: list[list[str]] = []
        self.lines: list[int] = []  # number of every row's last line in the file
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    self.rows.append(row)
                    self.lines.append(skipped + reader.line_num)
        except csv.Error as error:
            raise UserError(f"{path}, line {skipped + reader.line_num}: {error}") from error
        if not self.rows:
            raise UserError(f"{path} has no rows below its header" if self.names else f"{path} is empty")
        both = list(zip(self.rows, self.lines, strict=True))
        want = len(self.names)
        odd = [
            f"{path}, line {line}: {len(row)} cells, but the header has {want}"
            for row, line in both
            if len(row) != want
        ]
        if odd:
            fault(f"{len(odd)} row(s) do not fit the header", odd)
            self.rows = [row for row in self.rows if len(row) == len(self.names)]
            self.lines = [line for row, line in both if len(row) == len(self.names)]

    def texts(self, name: str) -> list[str]:
        """Return a column's cells without the blanks around them."""
        if self.names.count(name) != 1:
            if name in self.names:
                raise UserError(f"{self.path} has {self.names.count(name)} columns {name!r}")
            folded = {other.casefold(): other for other in self.names}
            near = difflib.get_close_matches(name.casefold(), folded, 1)
            hint = f", did you mean {folded[near[0]]!r}?" if near else f"; it has {some(self.names, 8)}"
            raise UserError(f"{self.path} has no column {name!r}{hint}")
        column = self.names.index(name)
        return [row[column].strip() for row in self.rows]

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as float64.

        Raises:
            UserError: A cell is empty or holds no finite number; ``check`` gets NaN there.
        """
        texts = self.texts(name)
        values = numbers(pd.Series(texts, dtype=str), comma=self.separator != ",").to_numpy()
        bad = []
        for row in np.flatnonzero(np.isnan(values)):
            text = texts[row]
            what = "the value is missing" if text.casefold() in MISSING else f"{text!r} is no finite number"
            shown = f" ({text})" if text and text.casefold() in MISSING else ""
            bad.append(f"{self.path}, line {self.lines[row]}, column {name!r}: {what}{shown}")
        if bad:
            fault(f"{len(bad)} cell(s) of {name!r} hold no number", bad)
        return values

    def dates(self, name: str) -> np.ndarray:
        """Return a column of dates or times as datetime64[s], local times where they have an offset.

        Raises:
            UserError: A cell is no date in the format of the others; ``check`` gets NaT there.
        """
        texts = [re.sub(r"(?<=:\d\d)(Z|[+-]\d\d:?\d\d)$", "", text) for text in self.texts(name)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas' words on formats; ours follow
            readings = [pd.to_datetime(texts, errors="coerce", dayfirst=first) for first in (False, True)]
        for reading in readings:
            if not reading.isna().any():
                return reading.to_numpy().astype("datetime64[s]")
        best = min(readings, key=lambda reading: reading.isna().sum())
        like = f" like {texts[0]!r}" if not best.isna()[0] else ""
        wrong = np.flatnonzero(best.isna())
        places = [
            f"{self.path}, line {self.lines[row]}, column {name!r}: {texts[row]!r} is no date{like}" for row in wrong
        ]
        fault(f"{len(places)} cell(s) of {name!r} hold no date", places)
        return best.to_numpy().astype("datetime64[s]")


def read_text(path: Path) -> str:
    """Return the text of a file in whichever of the usual encodings it is."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a CSV file")
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:
        raise UserError(f"{path} is no text; save it as CSV")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        note(f"{path} is not UTF-8; it is read as Windows-1252, look at line {line}, or save it as UTF-8")
        return content.decode("cp1252", errors="replace")


def numbers(cells: "pd.Series[str]", comma: bool) -> "pd.Series[float]":
    """Return the numbers that cells spell, NaN for all else, what 32 bits cannot hold included.

    Args:
        cells: The cells of a column.
        comma: Whether a comma may be the decimal, since the cells are not separated by commas.
    """
    if comma:
        decimal = cells.str.fullmatch(DECIMAL_COMMA)
        if decimal.any():  # then points part the thousands
            grouped = decimal | cells.str.fullmatch(THOUSANDS)
            cells = cells.where(~grouped, cells.str.replace(".", "").str.replace(",", "."))
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    return values.where(values.abs() <= np.finfo(np.float32).max)
