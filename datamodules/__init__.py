"""One LightningDataModule per kind of data: files, splits, augmentation, and the Dataset above it."""
