"""Counting language models: what came behind the last few tokens, and how often (Kneser and Ney 1995).

Interpolated, with one discount an order (Chen and Goodman 1999, https://doi.org/10.1006/csla.1999.0128).
"""

import numpy as np


class KneserNey:
    """Probabilities of tokens behind the ``order - 1`` tokens before them.

    Args:
        tokens: The training text, int64 (N,).
        vocab_size: Number of different tokens.
        order: Length of the longest sequences that are counted.
    """

    def __init__(self, tokens: np.ndarray, vocab_size: int, order: int) -> None:
        self.vocab_size = vocab_size
        self.keys: list[np.ndarray] = []  # of every order, sorted: number of the sequence without its last token, token
        self.counts: list[np.ndarray] = []  # of every sequence; of shorter ones, how many tokens come before it
        self.discounts: list[float] = []
        prefixes = np.zeros(len(tokens), np.int64)  # number of the sequence before a place, one order shorter
        endings = prefixes  # number of the sequence that ends at a place, one order shorter
        for length in range(1, order + 1):
            keys, inverse, counts = np.unique(
                prefixes * vocab_size + tokens[length - 1 :], return_inverse=True, return_counts=True
            )
            if length > 1:  # each of these sequences comes before one that ends as it does
                _, first = np.unique(inverse, return_index=True)
                self.counts[-1] = np.bincount(endings[1:][first], minlength=len(self.keys[-1]))
                self.discounts[-1] = discount(self.counts[-1])
            self.keys.append(keys)
            self.counts.append(counts)
            self.discounts.append(discount(counts))
            endings, prefixes = inverse, inverse[:-1]

    def bits(self, tokens: np.ndarray) -> np.ndarray:
        """Return the bits that each token of a text costs, but the first ones, which have too few before them."""
        share = np.full(len(tokens), 1 / self.vocab_size)
        prefixes = np.zeros(len(tokens), np.int64)
        for length, (keys, counts, off) in enumerate(zip(self.keys, self.counts, self.discounts, strict=True), start=1):
            before = keys // self.vocab_size
            size = int(before[-1]) + 1
            total = np.bincount(before, counts, minlength=size)
            kinds = np.bincount(before, minlength=size)
            wanted = np.where(prefixes < 0, -1, prefixes * self.vocab_size + tokens[length - 1 :])
            place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            found = keys[place] == wanted
            known = (prefixes >= 0) & (prefixes < size)
            known[known] = total[prefixes[known]] > 0
            row = np.where(known, prefixes, 0)
            count = np.where(found, counts[place], 0)
            seen = (np.maximum(count - off, 0) + off * kinds[row] * share) / np.maximum(total[row], 1)
            share = np.where(known, seen, share)
            if length < len(self.keys):
                prefixes = np.where(found, place, -1)[:-1]
                share = share[1:]
        return -np.log2(share)


def discount(counts: np.ndarray) -> float:
    """Return what is taken from every count, for what was never seen."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5
