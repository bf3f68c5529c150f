"""Boston housing: 506 tracts of 1970, Harrison and Rubinfeld 1978; comes with mlxtend, no download.

The data set's column ``b``, made of the share of Black inhabitants, is left out here: its authors supposed that racial
self-segregation raises prices, and a model that prices people by it is nothing to be taught with.
"""

import numpy as np
import pandas as pd
from mlxtend.data import boston_housing_data

from datamodules.csv_table import Table
from datamodules.tabular import TabularDataModule
from engine.errors import UserError

FEATURES = ["crim", "zn", "indus", "chas", "nox", "rm", "age", "dis", "rad", "tax", "ptratio", "b", "lstat"]
FOLDS = 5


class BostonHousingDataModule(TabularDataModule):
    """The median price of homes, in 1,000 dollars, in a tract of Boston, by twelve of its properties.

    Args:
        fold: Which fifth of the rows is the test part, 0 to 4; each row is tested in one of the five. Half of the next
            fifth is the validation part.
        batch_size: Rows in a batch.
    """

    def __init__(self, fold: int = 0, batch_size: int = 64) -> None:
        super().__init__("medv", batch_size, ignore=["b"])
        if not 0 <= fold < FOLDS:
            raise UserError(f"data.fold is {fold}, but the folds are 0 to {FOLDS - 1}")
        self.fold = fold

    def read(self) -> tuple[Table, list[str]]:
        features, prices = boston_housing_data()
        values = pd.DataFrame(features, columns=FEATURES).assign(medv=prices)
        places = np.array([f"boston_housing, line {row + 1}" for row in range(len(values))])
        return Table(values.astype(str), values, places), ["train"] * len(values)

    def split(self, parts: list[str], hashes: list[str], present: np.ndarray) -> list[str]:
        rank = np.empty(len(parts), int)
        rank[np.argsort(hashes)] = np.arange(len(parts))  # no two rows are alike
        new = np.array(parts, dtype=object)
        new[rank % (2 * FOLDS) == (self.fold + 1) % FOLDS] = "val"
        new[rank % FOLDS == self.fold] = "test"
        return new.tolist()
