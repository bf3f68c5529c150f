"""Which samples make a batch, for data sets that answer a whole batch of indices at once (``__getitems__``)."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Sampler

from engine.errors import UserError

Batch = TypeVar("Batch")


class ShuffledEpochs(Sampler[int]):
    """All samples in a new order every epoch, as ``epoch * length + index``; of several devices each gets its share.

    From that number and the run's seed follow the order of the samples and all random changes to them, so a resumed
    training sees what an undisturbed one would have seen.

    Args:
        length: Number of samples.
    """

    def __init__(self, length: int) -> None:
        self.length, self.epoch = length, 0
        self.position = 0  # samples of this epoch that were handed out
        self.start = 0  # samples to leave out of the next epoch, since an interrupted training has seen them

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // share()[1]

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        self.position, self.start = self.start, 0
        for index in order[self.position :].tolist():
            self.position += 1
            yield self.epoch * self.length + index

    def order(self) -> Tensor:
        """Return the samples of this device in the order of the epoch."""
        rank, devices = share()
        order = torch.randperm(self.length, generator=generator_for(self.epoch))
        return order[rank : len(self) * devices : devices]  # as many for each: they wait for each other at every step


class StreamedEpochs(ShuffledEpochs):
    """Samples that go on from batch to batch: the i-th of a batch follows the i-th of the batch before.

    Args:
        length: Number of samples, which are read as ``streams`` streams of equal length, one behind the other.
        streams: Samples in a batch, of all devices together.
    """

    def __init__(self, length: int, streams: int) -> None:
        super().__init__(length)
        self.streams = streams

    def order(self) -> Tensor:
        rank, devices = share()
        return torch.arange(self.length).view(self.streams, -1)[rank::devices].T.flatten()


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over ``ShuffledEpochs`` whose position within the epoch goes into the checkpoint."""

    sampler: ShuffledEpochs

    def state_dict(self) -> dict[str, int]:
        """Return the position, for Lightning to put it into the checkpoint."""
        return {"batches": self.sampler.position // (self.batch_size or 1) % len(self)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next epoch start at a position."""
        self.sampler.start = state_dict["batches"] * (self.batch_size or 1)


def share() -> tuple[int, int]:
    """Return the number of this device, from 0 on, and the number of devices that share the work."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def generator_for(number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator that depends on nothing but a number and the run's seed."""
    return torch.Generator(device).manual_seed((torch.initial_seed() * 1_000_003 + number) % 2**63)


class Batches(Sampler[list[int]]):
    """Batches in a fixed order.

    Args:
        batches: The samples of each.
        shared: Whether of several devices each gets its share, no sample twice; or each gets all.
    """

    def __init__(self, batches: list[list[int]], shared: bool = True) -> None:
        self.batches, self.shared = batches, shared

    def __len__(self) -> int:
        return len(self.of_this_device())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.of_this_device())

    def of_this_device(self) -> list[list[int]]:
        """Return the share of this device, of which none goes empty as long as there are samples for all."""
        rank, devices = share() if self.shared else (0, 1)
        batches = list(self.batches)
        while len(batches) < devices and (largest := max(batches, key=len, default=[]))[1:]:
            batches.remove(largest)
            batches += [largest[::2], largest[1::2]]
        return batches[rank::devices]


def same_size_batches(
    sizes: Sequence[tuple[int, int]], batch_size: int, max_pixels: int = 1_000_000
) -> list[list[int]]:
    """Return batches whose samples all have the same size, so that none must be padded.

    Args:
        sizes: (height, width) of every sample.
        batch_size: Largest number of samples in a batch.
        max_pixels: Largest number of pixels in a batch of more than one sample.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    batches = []
    for (height, width), indices in groups.items():
        count = max(1, min(batch_size, max_pixels // (height * width)))
        batches += [indices[i : i + count] for i in range(0, len(indices), count)]
    return batches


def shuffled(dataset: Any, batch_size: int, length: int | None = None) -> ResumableLoader:
    """Return training batches.

    Args:
        dataset: Answers a batch of numbers, as ``ShuffledEpochs`` hands them out, by ``__getitems__``.
        batch_size: Samples in a batch, fewer only if a device has fewer.
        length: Samples in an epoch, if it is not the data set's length.
    """
    sampler = ShuffledEpochs(length or len(dataset))
    if not len(sampler):
        raise UserError(f"{sampler.length} training sample(s) cannot be shared out to {share()[1]} devices")
    return sampled(dataset, min(batch_size, len(sampler)), sampler)


def sampled(dataset: Any, batch_size: int, sampler: ShuffledEpochs) -> ResumableLoader:
    """Return training batches in the order of a sampler."""
    return ResumableLoader(
        dataset,
        batch_size,
        sampler=sampler,
        collate_fn=whole_batch,
        drop_last=True,  # a last batch of one sample would upset batch norm
        generator=torch.Generator(),  # else it would draw from the one that trainings are resumed by
    )


def ordered(
    dataset: Any, batch_size: int, sizes: Sequence[tuple[int, int]] | None = None, shared: bool = True
) -> DataLoader[Any]:
    """Return batches in a fixed order.

    Args:
        dataset: Answers a batch of indices by ``__getitems__``.
        batch_size: Largest number of samples in a batch.
        sizes: (height, width) of every sample, where they differ.
        shared: Whether of several devices each gets its share; what a baseline learns from, all need whole.
    """
    return batched(dataset, same_size_batches(sizes or [(1, 1)] * len(dataset), batch_size), shared)


def batched(dataset: Any, batches: list[list[int]], shared: bool = True) -> DataLoader[Any]:
    """Return given batches of a data set, as ``ordered`` does."""
    sampler = Batches(batches, shared)
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=whole_batch, generator=torch.Generator())


def whole_batch(batch: Batch) -> Batch:
    """Collate nothing: the data set has already made a batch."""
    return batch
