"""Columns of a table that say its target by themselves, and so are perhaps not known before it is."""

import numpy as np
import pandas as pd

from datamodules.csv_table import Table
from datamodules.table_columns import Column

SURE = 0.999  # share of the target that a column may not say by itself


def columns_that_say_target(
    table: Table, columns: list[Column], target: np.ndarray, classes: bool, in_train: np.ndarray
) -> list[str]:
    """Return the names of columns that say the target by themselves: what a row's neighbour in the column has, it has.

    Args:
        table: All rows.
        columns: The columns that are used.
        target: The target, numbers or class ids (N,).
        classes: Whether the target is a class.
        in_train: Which rows are trained on (N,).
    """
    names = []
    for column in columns:
        keys = (table.cells if column.median is None else table.values)[column.name].to_numpy()
        if says_target(keys, target, in_train, classes):
            names.append(column.name)
    return names


def says_target(keys: np.ndarray, target: np.ndarray, in_train: np.ndarray, classes: bool) -> bool:
    """Tell whether held-out rows have nearly the target of the training row that is next to them in a column.

    Args:
        keys: The column, numbers or texts (N,).
        target: The target, numbers or class ids (N,).
        in_train: Which rows are trained on (N,).
        classes: Whether the target is a class.
    """
    if keys.dtype == object:
        mean = pd.Series(target[in_train]).groupby(keys[in_train]).agg(lambda some: some.mode()[0])
        said, truth = pd.Series(keys[~in_train]).map(mean).to_numpy(float), target[~in_train]
    else:
        known = in_train & ~np.isnan(keys)
        order = np.argsort(keys[known], kind="stable")
        asked = ~in_train & ~np.isnan(keys)
        said = np.interp(keys[asked], keys[known][order], target[known][order]) if known.any() else np.zeros(0)
        said, truth = said.round() if classes else said, target[asked]
    if len(truth) < 5 or len(np.unique(truth)) < 2:
        return False
    if classes:
        return bool((said == truth).mean() > SURE)
    return bool(1 - np.nanmean((said - truth) ** 2) / np.var(truth) > SURE)
