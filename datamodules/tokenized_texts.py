"""Texts as tokens, from their start: those with a class, in batches, and those whose class is to be told."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from datamodules.tokenization import encode


class TokenizedTexts(Dataset[dict[str, Any]]):
    """Texts of one part as tokens, a whole batch at a time, as long as the longest of it.

    A batch has ``tokens``, int64 (B, T), shorter texts filled up with a number that is no token, ``text``, and
    ``label``, int64 (B,).

    Args:
        texts: The texts.
        labels: Class of every text, int64 (N,).
        tokenizer: The tokenizer.
        context: Most tokens of a text that are read.
    """

    def __init__(self, texts: list[str], labels: np.ndarray, tokenizer: Tokenizer, context: int) -> None:
        self.texts, self.labels = texts, torch.from_numpy(labels)
        self.tokens, self.padding = tokens_of(tokenizer, texts, context), tokenizer.get_vocab_size()

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        rows = [number % len(self) for number in numbers]  # see ShuffledEpochs
        tokens = padded([self.tokens[row] for row in rows], self.padding)
        return {"tokens": tokens, "text": [self.texts[row] for row in rows], "label": self.labels[rows]}


class UnlabelledTexts(Dataset[dict[str, Any]]):
    """The user's texts. A sample has ``tokens``, int64 (N, T), ``path``, and ``text``, or N rows as ``table``, a CSV.

    Args:
        texts: Where each text is from, and the text.
        tables: Where each table is from, its texts, and the table as CSV.
        tokenizer: The tokenizer of the training.
        context: Most tokens of a text that are read.
        skipped: Files that cannot be read.
    """

    def __init__(
        self,
        texts: list[tuple[str, str]],
        tables: list[tuple[str, list[str], str]],
        tokenizer: Tokenizer,
        context: int,
        skipped: list[str],
    ) -> None:
        self.samples: list[tuple[list[str], dict[str, str]]] = []
        self.samples += [([text], {"path": path, "text": text}) for path, text in texts]
        self.samples += [(column, {"path": path, "table": table}) for path, column, table in tables]
        self.tokenizer, self.context, self.skipped = tokenizer, context, skipped

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        texts, sample = self.samples[index]
        tokens = padded(tokens_of(self.tokenizer, texts, self.context), self.tokenizer.get_vocab_size())
        return {"tokens": tokens, **sample}


def tokens_of(tokenizer: Tokenizer, texts: list[str], context: int) -> list[Tensor]:
    """Return the first tokens of every text; a text that has none is one unknown token."""
    tokens = (encode(tokenizer, text)[0][:context] for text in texts)
    return [torch.from_numpy(numbers) if len(numbers) else torch.zeros(1, dtype=torch.long) for numbers in tokens]


def padded(tokens: list[Tensor], padding: int) -> Tensor:
    """Return tokens of several texts as one tensor (B, T), filled up at the ends."""
    return pad_sequence(tokens, batch_first=True, padding_value=padding)
