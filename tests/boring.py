"""A datamodule that knows nothing, for tests of what happens then."""

from lightning.pytorch import LightningDataModule


class Data(LightningDataModule):
    """Knows no facts."""
