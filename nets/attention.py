"""Attention Is All You Need, https://arxiv.org/abs/1706.03762: what transformers have in common.

Differs from the paper: norms come before attention and feed-forward layers, not behind them
(https://arxiv.org/abs/2002.04745), and GELU takes the place of ReLU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PADDING = 0  # the token that stands for nothing, where texts of different lengths are in a batch

# Keys and values (B, N, T, dim / N) of the tokens so far: what comes later need not compute them again.
Past = tuple[Tensor, Tensor]

# Cosines and sines (T, dim / N / 2) by which queries and keys are rotated: so tokens know how far away others are.
Turns = tuple[Tensor, Tensor]


class SelfAttention(nn.Module):
    """Every token reads from all tokens, several times side by side.

    Args:
        dim: Width of a token.
        num_heads: Number of readings side by side; divides ``dim``.
        causal: Whether a token reads only from itself and those before it.
    """

    def __init__(self, dim: int, num_heads: int, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def heads(self, x: Tensor, turns: Turns | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, N, T, dim / N) of tokens (B, T, dim)."""
        asked_found, (value,) = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).split((2, 1))
        query, key = rotated(asked_found, turns) if turns else asked_found
        return query, key, value

    def forward(self, x: Tensor, mask: Tensor | None = None, turns: Turns | None = None) -> Tensor:
        """Map tokens (B, T, dim) to tokens (B, T, dim).

        Args:
            x: Tokens.
            mask: Whether a token may be read from, bool (B, T); all of them where there is none.
            turns: What ``turns_of`` returns; tokens do not know where they are where there is none.
        """
        query, key, value = self.heads(x, turns)
        among = None if mask is None else mask[:, None, None]
        read = F.scaled_dot_product_attention(query, key, value, among, is_causal=self.causal)
        return self.out(read.transpose(1, 2).flatten(2))

    def go_on(self, x: Tensor, past: Past | None, turns: Turns) -> tuple[Tensor, Past]:
        """Map the next tokens (B, T, dim) to tokens of the same shape, given those before them.

        Args:
            x: Tokens.
            past: What the call before has returned; None at the start.
            turns: What ``turns_of`` returns for these tokens.

        Returns:
            The tokens, and the past of those that follow.
        """
        query, key, value = self.heads(x, turns)
        if past:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        T, S = query.shape[2], key.shape[2]
        seen = None if T == 1 else torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        read = F.scaled_dot_product_attention(query, key, value, seen)
        return self.out(read.transpose(1, 2).flatten(2)), (key, value)

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each token reads from each, (B, N, T, T), every row a distribution."""
        query, key, _ = self.heads(x)
        return torch.softmax(query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5, dim=-1)


class CrossAttention(nn.Module):
    """Every token of one text reads from all tokens of another, several times side by side.

    Args:
        dim: Width of a token.
        num_heads: Number of readings side by side; divides ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.keys_values = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def memory(self, source: Tensor) -> Past:
        """Return keys and values (B, N, S, dim / N) of the text that is read from, (B, S, dim)."""
        keys, values = self.keys_values(source).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(self, x: Tensor, memory: Past, mask: Tensor) -> Tensor:
        """Map tokens (B, T, dim) to tokens of the same shape, reading where a mask (B, S) of the other text allows."""
        query = self.query(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        read = F.scaled_dot_product_attention(query, *memory, mask[:, None, None])
        return self.out(read.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, memory: Past, mask: Tensor) -> Tensor:
        """Return how much each token reads from each of the other text, (B, N, T, S), every row a distribution."""
        query = self.query(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        scores = query @ memory[0].transpose(-2, -1) / query.shape[-1] ** 0.5
        return torch.softmax(scores.masked_fill(~mask[:, None, None], -torch.inf), dim=-1)


class TransformerBlock(nn.Module):
    """Self-attention, then a feed-forward layer on every token, each added to its input.

    Args:
        dim: Width of a token.
        num_heads: Heads of the attention.
        dropout: Share of what is added that is set to zero in training.
        causal: Whether a token reads only from itself and those before it.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, causal)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, turns: Turns | None = None) -> Tensor:
        """Map tokens (B, T, dim) to tokens (B, T, dim), with a mask and turns as ``SelfAttention`` has them."""
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, turns))
        return x + self.dropout(self.feed(self.norm_feed(x)))

    def go_on(self, x: Tensor, past: Past | None, turns: Turns) -> tuple[Tensor, Past]:
        """Map the next tokens (B, T, dim), given those before them; see ``SelfAttention.go_on``."""
        read, past = self.attention.go_on(self.norm_attention(x), past, turns)
        x = x + read
        return x + self.feed(self.norm_feed(x)), past


def turns_of(x: Tensor, num_heads: int, start: int = 0) -> Turns:
    """Return by what queries and keys of tokens (B, T, dim) are rotated; the angle grows with the position.

    Source: https://arxiv.org/abs/2104.09864.

    Args:
        x: The tokens.
        num_heads: Heads of the attention.
        start: Position of the first of the tokens.
    """
    _, T, D = x.shape
    half = D // num_heads // 2
    waves = 1 / 10_000 ** (torch.arange(half, device=x.device) / half)
    angles = (start + torch.arange(T, device=x.device))[:, None] * waves
    return angles.cos(), angles.sin()


def rotated(x: Tensor, turns: Turns) -> Tensor:
    """Rotate pairs of numbers of queries and keys (..., T, dim / N)."""
    cos, sin = turns[0].to(x.dtype), turns[1].to(x.dtype)
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)
