"""Series of numbers in time as they stand in CSV files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from datamodules.csv_files import CSVFile
from engine.errors import UserError, fault

GAP = 5  # a distance between rows of more than so many usual ones is worth a word: a weekend and a holiday are not


class Series:
    """Columns of a CSV file in the order of time.

    Args:
        path: The file.
        target: Column to be forecast.
        time: Column of dates or times.
        features: Columns to forecast from.

    Raises:
        UserError: A column is missing, a cell is no number or no date, or a date comes twice.
    """

    def __init__(self, path: Path, target: str, time: str, features: list[str]) -> None:
        file = CSVFile(path)
        dates, texts = file.dates(time), file.texts(time)
        columns = np.stack([file.numbers(name) for name in [*features, target]], axis=1)
        order = np.argsort(dates, kind="stable")
        order = order[~np.isnan(columns).any(1)[order] & ~np.isnat(dates)[order]]
        twice = np.flatnonzero(dates[order][1:] == dates[order][:-1])
        if len(twice):
            lines = [(file.lines[order[i + 1]], texts[order[i]], file.lines[order[i]]) for i in twice]
            again = [f"{path}, line {second}: {text} stands in line {first} already" for second, text, first in lines]
            fault(f"{len(twice)} date(s) come twice", again)
            order = np.delete(order, twice + 1)
        self.dates = dates[order]  # (rows,)
        self.features, self.target = columns[order, :-1], columns[order, -1]  # (rows, num_features), (rows,)
        self.lines = [file.lines[row] for row in order]  # of the file
        self.notes = [] if (order[1:] > order[:-1]).all() else ["rows were not in the order of time and are sorted"]
        back = np.flatnonzero(dates[1:] < dates[:-1]) + 1
        self.back = [f"{path}, line {file.lines[row]}: {texts[row]}" for row in back]  # rows before the one above them
        steps = np.diff(self.dates).astype(np.int64)
        self.wide = wide = np.flatnonzero(steps > GAP * np.median(steps)) if len(steps) else steps
        if len(wide):
            widest = int(np.argmax(steps))
            days = steps[widest] / 86_400
            when = f"{shown(self.dates[widest])} to {shown(self.dates[widest + 1])}"
            self.notes.append(f"{len(wide)} gap(s), the widest of {days:,.3g} days, {when}")

    def following(self, window: int, horizon: int) -> list[str]:
        """Return the dates that follow, as far as the last ``window`` ones have a rule, such as every weekday."""
        rule = pd.DatetimeIndex(self.dates[-window:], freq="infer").freq if window > 2 else None
        return (
            [shown(date) for date in pd.date_range(self.dates[-1], periods=horizon + 1, freq=rule)[1:]] if rule else []
        )


class SeriesFiles(Dataset[dict[str, Any]]):
    """The ends of the user's files, to be forecast beyond.

    A sample has ``series``, float (T, num_features), and ``past``, float (T,), as in training, ``dates``, those that
    follow as far as they can be told, and ``path``. Files that cannot be used are left out and named in ``skipped``.

    Args:
        paths: CSV files, and folders of such.
        columns: Names of the target, of the time, and of the features.
        window: Steps of the past, T.
        horizon: Steps of the future.
    """

    def __init__(self, paths: list[Path], columns: tuple[str, str, list[str]], window: int, horizon: int) -> None:
        self.window, self.horizon = window, horizon
        self.files: list[Series] = []
        self.paths: list[Path] = []
        self.skipped: list[str] = []
        found = [sorted(path.rglob("*.csv")) if path.is_dir() else [path] for path in paths]
        for path in (path for files in found for path in files):
            try:
                series = Series(path, *columns)
                if len(series.target) < window:
                    raise UserError(f"{path} has {len(series.target)} rows; a window has {window}")
            except UserError as error:
                self.skipped.append(str(error))
            else:
                self.files.append(series)
                self.paths.append(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        series = self.files[index]
        features, past = (torch.from_numpy(a[-self.window :]).float() for a in (series.features, series.target))
        dates = series.following(self.window, self.horizon)
        return {"series": features, "past": past, "dates": dates, "path": str(self.paths[index])}


def shown(date: Any) -> str:
    """Return a date, with the time of day where there is one."""
    stamp = pd.Timestamp(date)
    return f"{stamp:%Y-%m-%d}" if stamp == stamp.normalize() else f"{stamp:%Y-%m-%d %H:%M:%S}"
