"""Windows of a text: those that are trained on, and those by which every token is measured once."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import generator_for, ordered, share, whole_batch


class TrainingWindows(Dataset[dict[str, Any]]):
    """Windows of a text, side by side, from another start every epoch; a whole batch at a time.

    A batch has ``tokens``, int64 (B, T + 1): T tokens and the one behind each, and ``fresh``, whether they begin
    anew rather than go on where the batch before has ended.

    Args:
        tokens: The text (N,).
        length: Number of windows.
        context: Tokens T of a window.
        run: Windows that follow each other before one begins anew.
    """

    def __init__(self, tokens: np.ndarray, length: int, context: int, run: int) -> None:
        self.tokens, self.length, self.context, self.run = torch.from_numpy(tokens), length, context, run

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        epoch, first = divmod(numbers[0], self.length)
        spare = min(self.context, len(self.tokens) - self.length * self.context)  # at least one, the last target
        offset = torch.randint(spare, (1,), generator=generator_for(epoch))
        starts = offset + torch.tensor(numbers) % self.length * self.context
        return {"tokens": windows(self.tokens, starts, self.context + 1), "fresh": first % self.run == 0}


class MeasuredWindows(Dataset[dict[str, Any]]):
    """All of a text, every token the target of one window only.

    A batch has ``tokens``, int64 (B, T + 1), ``counts``, whether a target counts, bool (B, T), ``characters``, how many
    the counting targets stand for, int64 (), and ``fresh``.

    Args:
        tokens: The text (N,).
        characters: Characters that every token stands for (N,).
        context: Tokens T of a window.
        streams: Streams as which the text is read, each of windows that follow each other; 0 for windows that overlap
            by half, of which only the second half counts: it has enough to go on.
    """

    def __init__(self, tokens: np.ndarray, characters: np.ndarray, context: int, streams: int) -> None:
        self.tokens, self.characters = torch.from_numpy(tokens), torch.from_numpy(characters)
        self.context, targets = context, len(tokens) - 1
        if streams:
            self.run = -(-targets // (streams * context))  # windows of a stream
            first = torch.arange(streams * self.run) * context
            self.starts, self.first = first, first
            self.last = (first + context).clamp(max=targets)
        else:
            self.run, step = 1, max(1, context // 2)
            self.first = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(context, targets, step)])
            self.last = torch.cat([self.first[1:], torch.tensor([targets])])
            self.starts = (self.last - context).clamp(min=0)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        starts, first, last = (values[rows, None] for values in (self.starts, self.first, self.last))
        places = starts + torch.arange(self.context)  # of the inputs; each target is the token behind
        counts = (places >= first) & (places < last)
        behind = (places + 1).clamp(max=len(self.tokens) - 1)
        return {
            "tokens": windows(self.tokens, starts[:, 0], self.context + 1),
            "counts": counts,
            "characters": (self.characters[behind] * counts).sum(),
            "fresh": rows[0] % self.run == 0,
        }

    def in_order(self, batch_size: int) -> DataLoader[dict[str, Any]]:
        """Return batches; of several devices each gets its share."""
        if self.run == 1:
            return ordered(self, batch_size)
        rank, devices = share()
        batches = torch.arange(len(self)).view(-1, self.run)[rank::devices].T.tolist()
        return DataLoader(self, batch_sampler=batches, collate_fn=whole_batch, generator=torch.Generator())


def windows(tokens: Tensor, starts: Tensor, length: int) -> Tensor:
    """Return windows of a text (N,), int64 (B, length); behind its end its last token goes on."""
    return tokens[(starts[:, None] + torch.arange(length)).clamp(max=len(tokens) - 1)]
