"""Attention Is All You Need, https://arxiv.org/abs/1706.03762: what transformers have in common.

Differs from the paper: norms come before attention and feed-forward layers, not behind them
(https://arxiv.org/abs/2002.04745), and GELU takes the place of ReLU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Every token reads from all tokens, several times side by side.

    Args:
        dim: Width of a token.
        num_heads: Number of readings side by side; divides ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, N, T, dim / N) of tokens (B, T, dim)."""
        B, T, D = x.shape
        query, key, value = self.qkv(x).view(B, T, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        return query, key, value

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, dim) to tokens (B, T, dim)."""
        read = F.scaled_dot_product_attention(*self.heads(x))
        return self.out(read.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each token reads from each, (B, N, T, T), every row a distribution."""
        query, key, _ = self.heads(x)
        return torch.softmax(query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5, dim=-1)


class TransformerBlock(nn.Module):
    """Self-attention, then a feed-forward layer on every token, each added to its input.

    Args:
        dim: Width of a token.
        num_heads: Heads of the attention.
        dropout: Share of what is added that is set to zero in training.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, dim) to tokens (B, T, dim)."""
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.feed(self.norm_feed(x)))
