"""Series of numbers in time from a CSV file: windows of the past, and what follows on them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import ordered, shuffled
from datamodules.series_files import Series, SeriesFiles, shown
from engine.errors import UserError, fault, note

PARTS = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}  # shares of the rows, in the order of time
EPOCH = 32_768  # windows that an epoch sees at least; those of a short series come several times
FORESIGHT = 0.95  # correlation of a column's changes with the target's a row later from which on it knows them


class Windows(Dataset[dict[str, Tensor]]):
    """All windows of a part, a whole batch at a time; neither their past nor their future leaves the part.

    A batch has ``series``, float (B, T, num_features), and ``past``, float (B, T), the values of the features and of
    the target until now, ``target``, float (B, horizon), the target's values that follow, and ``time``, int64
    (B, horizon), when: seconds since 1970. All values are as in the file.

    Args:
        series: The columns.
        part: ``train``, ``val`` or ``test``.
        window: Steps of the past, T.
        horizon: Steps of the future.
        stride: Steps from one window to the next.
    """

    def __init__(self, series: Series, part: str, window: int, horizon: int, stride: int = 1) -> None:
        first, behind = (round(share * len(series.target)) for share in PARTS[part])
        features, target = (torch.from_numpy(a[first:behind]).float() for a in (series.features, series.target))
        time = torch.from_numpy(series.dates[first:behind].astype(np.int64))
        # Views of the columns: a value is in memory once, however many windows hold it.
        self.series = features[:-horizon].unfold(0, window, stride).transpose(1, 2)  # (windows, T, num_features)
        self.past = target[:-horizon].unfold(0, window, stride)
        self.target = target[window:].unfold(0, horizon, stride)
        self.time = time[window:].unfold(0, horizon, stride)

    def __len__(self) -> int:
        return len(self.past)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        chosen = torch.tensor(indices) % len(self)  # see ShuffledEpochs
        fields = {"series": self.series, "past": self.past, "target": self.target, "time": self.time}
        return {name: field[chosen] for name, field in fields.items()}


class TimeSeriesCSVDataModule(LightningDataModule):
    """A column of the user's CSV file, forecast from its own past or from that of any columns.

    The first 70 % of the rows in the order of time are for training, the next 10 % for validation, the last 20 % for
    the test. A window lies in one part with all its past and future, so that no row is in two parts. Rows out of order
    are sorted and gaps told; a row counts as one step, however far its date is from the one before.

    Args:
        root: The file; it has a header.
        target: Column to be forecast.
        time: Column of dates or times.
        features: Columns whose past the net reads; without them the target's own.
        window: Steps of the past that the net reads.
        horizon: Steps to be forecast.
        batch_size: Windows in a batch.
        stride: Steps from one training window to the next; more than 1 makes an epoch of a long series short.
    """

    def __init__(
        self,
        root: str,
        target: str,
        time: str,
        features: list[str] | None = None,
        window: int = 30,
        horizon: int = 1,
        batch_size: int = 256,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.root, self.target, self.time, self.features = Path(root), target, time, features or [target]
        self.window, self.horizon, self.batch_size, self.stride = window, horizon, batch_size, stride
        if window < 2 or min(horizon, batch_size, stride) < 1:
            raise UserError("--data.window must be at least 2; horizon, batch_size and stride at least 1")

    @cached_property
    def series(self) -> Series:
        """The whole file."""
        return Series(self.root, self.target, self.time, self.features)

    @property
    def num_features(self) -> int:
        """Columns that the net reads."""
        return len(self.features)

    @property
    def num_outputs(self) -> int:
        """Steps to be forecast."""
        return self.horizon

    @property
    def training_windows(self) -> dict[str, Tensor]:
        """All training windows as one batch, for statistics."""
        dataset = Windows(self.series, "train", self.window, self.horizon, self.stride)
        return dataset.__getitems__(list(range(len(dataset))))

    def prepare_data(self) -> None:
        rows, steps = len(self.series.target), self.window + self.horizon
        if rows < 10 * steps:  # the smallest part has a tenth
            window = rows // 10 - self.horizon
            shorter = f", or a --data.window of at most {window}" if window > 0 else ""
            needed = f"windows of {self.window} + {self.horizon} steps need {10 * steps}"
            raise UserError(f"{self.root} has {rows} row(s); {needed}{shorter}")
        for part in PARTS:
            windows = Windows(self.series, part, self.window, self.horizon)
            if (windows.target == windows.past[:, -1:]).all():
                fault(f"{self.root}: column {self.target!r} never changes in the {part} part")

    def __str__(self) -> str:
        dates = self.series.dates
        strides = {"train": self.stride, "val": 1, "test": 1}
        sizes = {part: len(Windows(self.series, part, self.window, self.horizon, strides[part])) for part in PARTS}
        counts = " / ".join(f"{size:,} {part}" for part, size in sizes.items())
        parts = f"{counts} windows of {self.window} + {self.horizon} steps"
        rows = f"{len(dates):,} rows, {shown(dates[0])} to {shown(dates[-1])}"
        return "; ".join([f"{type(self).__name__}: {parts}", rows, *self.series.notes])

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        dataset = Windows(self.series, "train", self.window, self.horizon, self.stride)
        return shuffled(dataset, self.batch_size, length=len(dataset) * -(-EPOCH // len(dataset)))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Tensor]]:
        """Return batches of a part in the order of time."""
        return ordered(Windows(self.series, part, self.window, self.horizon), self.batch_size)

    @property
    def feature_names(self) -> list[str]:
        """Name of every column that the net reads."""
        return self.features

    def names(self, part: str) -> list[str]:
        """Return file and line of the first row of every window of a part."""
        first = round(PARTS[part][0] * len(self.series.lines))
        count = len(Windows(self.series, part, self.window, self.horizon))
        return [f"{self.root}, line {line}" for line in self.series.lines[first : first + count]]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` what is out of order or lacking, and which columns change as the target will a row later."""
        series = self.series
        if series.back:
            note("rows are not in the order of time and are sorted", series.back)
        both = [(series.lines[i + 1], shown(series.dates[i]), shown(series.dates[i + 1])) for i in series.wide]
        if both:
            note(
                f"{len(both)} gap(s) in time", [f"{self.root}, line {line}: {one} to {two}" for line, one, two in both]
            )
        ahead = np.diff(series.target)[1:]
        for name, column in zip(self.features, series.features.T, strict=True):
            now = np.diff(column)[:-1]
            moves = name != self.target and now.std() and ahead.std()
            if moves and abs(spearmanr(now, ahead).statistic) > FORESIGHT:  # of ranks: gaps do not count for more
                words = f"the column {name!r} changes as {self.target!r} does a row later: it knows the future"
                note(f"{words}; leave it out of --data.features", broken=True)
        steps = np.diff(series.dates).astype(np.int64)
        usual = f"{np.median(steps) / 3600:,.4g} hours from row to row" if len(steps) else ""
        said = [f"{len(series.dates):,} rows, {shown(series.dates[0])} to {shown(series.dates[-1])}", usual]
        return {"the series": [*said, *series.notes], "leaks?": ["columns that know the future"]}

    def predict_dataset(self, paths: list[Path]) -> SeriesFiles:
        """Return the ends of the user's files as a data set for ``predict_step``."""
        for path in paths:
            if not path.exists():
                raise UserError(f"{path} does not exist")
        return SeriesFiles(paths, (self.target, self.time, self.features), self.window, self.horizon)

    def preparation(self) -> dict[str, Any]:
        how = "the last rows in the order of time: series of the features, past of the target"
        columns = {"time": self.time, "features": self.features, "target": self.target}
        return {"kind": "series", "how": how, "window": self.window, "horizon": self.horizon, **columns}

    def state_dict(self) -> dict[str, Any]:
        return {"num_features": self.num_features, "window": self.window, "horizon": self.horizon}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["num_features"] != self.num_features:
            raise UserError(f"the checkpoint reads {state_dict['num_features']} column(s), not {self.num_features}")
        self.window, self.horizon = state_dict["window"], state_dict["horizon"]


class NetflixDataModule(TimeSeriesCSVDataModule):
    """Netflix, every trading day from 2 January 2013 to 21 September 2023; source and licence stand in the file.

    Args:
        target: Column to be forecast.
        time: Column of dates; of interest where ``--input`` names it otherwise.
        features: Columns whose past the net reads; without them the target's own.
        window: Trading days that the net reads.
        horizon: Trading days to be forecast.
        batch_size: Windows in a batch.
        stride: Days from one training window to the next.
    """

    def __init__(
        self,
        target: str = "Adj Close",
        time: str = "Date",
        features: list[str] | None = None,
        window: int = 30,
        horizon: int = 1,
        batch_size: int = 256,
        stride: int = 1,
    ) -> None:
        path = Path(__file__).with_name("netflix.csv")
        super().__init__(str(path), target, time, features, window, horizon, batch_size, stride)
