"""Sentences and their translations as tokens, in batches of about the same length; and sentences to be translated."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from datamodules.batches import generator_for
from datamodules.tokenization import UNKNOWN

# The first tokens of both languages. Nets know the number of padding, 0.
PADDING, BEGIN, END = "[PAD]", "[BOS]", "[EOS]"
SPECIAL = (PADDING, UNKNOWN, BEGIN, END)

Pairs = list[tuple[str, str]]  # a sentence and its translation


class SentencePairs(Dataset[dict[str, Any]]):
    """Sentences and their translations, a whole batch at a time.

    A batch has ``source``, int64 (B, S), a sentence and ``[EOS]``, ``target``, int64 (B, T), its translation between
    ``[BOS]`` and ``[EOS]``, both padded with 0 to the longest, and ``text`` and ``translation`` as they were written.

    Args:
        pairs: The texts.
        source: Tokenizer of the sentences.
        target: Tokenizer of the translations.
        longest: Tokens of the longest that are kept; None keeps all.
    """

    def __init__(self, pairs: Pairs, source: Tokenizer, target: Tokenizer, longest: int | None = None) -> None:
        begin = torch.tensor([target.token_to_id(BEGIN)])
        sources = numbers(source, [sentence for sentence, _ in pairs])
        targets = [torch.cat([begin, tokens]) for tokens in numbers(target, [other for _, other in pairs])]
        lengths = [max(map(len, both)) for both in zip(sources, targets, strict=True)]
        kept = self.kept = [row for row, length in enumerate(lengths) if longest is None or length <= longest]
        self.pairs, self.lengths = [pairs[row] for row in kept], np.array([lengths[row] for row in kept])
        self.sources, self.targets = [sources[row] for row in kept], [targets[row] for row in kept]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        return {
            "source": pad_sequence([self.sources[row] for row in rows], batch_first=True),
            "target": pad_sequence([self.targets[row] for row in rows], batch_first=True),
            "text": [self.pairs[row][0] for row in rows],
            "translation": [self.pairs[row][1] for row in rows],
        }

    def bucketed(self, batch_tokens: int, tie: np.ndarray | None = None) -> list[list[int]]:
        """Return batches of sentences of about the same length.

        Args:
            batch_tokens: Tokens of a batch with its padding, of the longer side; one sentence may have more.
            tie: Order of sentences of the same length; how many batches there are does not depend on it.
        """
        order = np.lexsort((np.arange(len(self)) if tie is None else tie, self.lengths))
        batches: list[list[int]] = [[]]
        for row in order.tolist():
            if batches[-1] and (len(batches[-1]) + 1) * self.lengths[row] > batch_tokens:
                batches.append([])
            batches[-1].append(row)
        return batches


class BucketedBatches(Dataset[dict[str, Any]]):
    """Training batches by their numbers; which sentences of about the same length meet changes from epoch to epoch.

    Args:
        pairs: The sentences.
        batch_tokens: Tokens of a batch.
    """

    def __init__(self, pairs: SentencePairs, batch_tokens: int) -> None:
        self.pairs, self.batch_tokens = pairs, batch_tokens
        self.epoch, self.batches = -1, pairs.bucketed(batch_tokens)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitems__(self, number: list[int]) -> dict[str, Any]:
        epoch, place = divmod(number[0], len(self))
        if epoch != self.epoch:
            tie = torch.randperm(len(self.pairs), generator=generator_for(epoch)).numpy()
            self.epoch, self.batches = epoch, self.pairs.bucketed(self.batch_tokens, tie)
        return self.pairs.__getitems__(self.batches[place])


class Sentences(Dataset[dict[str, Any]]):
    """What is to be translated. A sample has ``source``, int64 (S,), ``text`` and ``path``.

    Args:
        sentences: Where each is from, and the sentence.
        tokenizer: Tokenizer of the source.
        skipped: Files that cannot be read.
    """

    def __init__(self, sentences: Pairs, tokenizer: Tokenizer, skipped: list[str]) -> None:
        self.sentences, self.skipped = sentences, skipped
        self.sources = numbers(tokenizer, [sentence for _, sentence in sentences])

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, sentence = self.sentences[index]
        return {"source": self.sources[index], "text": sentence, "path": path}


def numbers(tokenizer: Tokenizer, sentences: list[str]) -> list[Tensor]:
    """Return the tokens of sentences and the end behind each, int64 (T,)."""
    end = tokenizer.token_to_id(END)
    return [torch.tensor([*found.ids, end]) for found in tokenizer.encode_batch(sentences, add_special_tokens=False)]
