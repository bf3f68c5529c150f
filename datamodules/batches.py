"""Which samples make a batch, for data sets that answer a whole batch of indices at once (``__getitems__``)."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch.utils.data import Sampler

Batch = TypeVar("Batch")


class ShuffledEpochs(Sampler[int]):
    """A new order every epoch that depends on nothing but the run's seed and the epoch, so that it can be resumed.

    Args:
        length: Number of samples.
    """

    def __init__(self, length: int) -> None:
        self.length, self.epoch, self.seed = length, 0, torch.initial_seed()

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return iter(torch.randperm(self.length, generator=generator).tolist())


class SameSizeBatches(Sampler[list[int]]):
    """Batches in a fixed order whose samples all have the same size, so that none must be padded.

    Args:
        sizes: (height, width) of every sample.
        batch_size: Largest number of samples in a batch.
        max_pixels: Largest number of pixels in a batch of more than one sample.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, max_pixels: int = 1_000_000) -> None:
        groups: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(sizes):
            groups.setdefault(size, []).append(index)
        self.batches = []
        for (height, width), indices in groups.items():
            count = max(1, min(batch_size, max_pixels // (height * width)))
            self.batches += [indices[i : i + count] for i in range(0, len(indices), count)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def whole_batch(batch: Batch) -> Batch:
    """Collate nothing: the data set has already made a batch."""
    return batch
