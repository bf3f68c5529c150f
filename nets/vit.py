"""An Image Is Worth 16x16 Words, https://arxiv.org/abs/2010.11929.

Differs from the paper: a stem of convolutions (https://arxiv.org/abs/2106.14881), fixed sines and cosines as positions
and an average over all tokens instead of a class token (https://arxiv.org/abs/2205.01580); pictures may have any size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nets.attention import TransformerBlock


def positions(height: int, width: int, dim: int) -> Tensor:
    """Return sines and cosines of row and column, (height * width, dim); ``dim`` divides by 4."""
    waves = 1 / 10_000 ** (torch.arange(dim // 4) / (dim // 4))
    rows, columns = (torch.arange(n)[:, None] * waves for n in (height, width))
    rows, columns = rows[:, None].expand(height, width, -1), columns[None].expand(height, width, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=-1).flatten(0, 1)


class ViT(nn.Module):
    """A transformer over patches of a picture.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Numbers that come out: classes.
        dim: Width of a token; divides by 4 and by ``num_heads``.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        stem: Channels of the stem's convolutions, each of which halves the picture: two make patches of 4 x 4.
        dropout: Share of what a block adds that is set to zero in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int = 192,
        depth: int = 9,
        num_heads: int = 3,
        stem: Sequence[int] = (48, 96),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for wider in stem:
            layers += [
                nn.Conv2d(channels, wider, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(inplace=True),
            ]
            channels = wider
        self.stem = nn.Sequential(*layers, nn.Conv2d(channels, dim, 1))
        self.blocks = nn.Sequential(*(TransformerBlock(dim, num_heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, out_channels)

    def tokens(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Return a token for each place, (B, T, dim), and the places' height and width."""
        x = self.stem(x)
        _, D, H, W = x.shape
        return x.flatten(2).transpose(1, 2) + positions(H, W, D).to(x), H, W

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        tokens, _, _ = self.tokens(x)
        return self.head(self.norm(self.blocks(tokens)).mean(1))

    def attention_map(self, x: Tensor) -> Tensor:
        """Return how much the last block reads from each place of pictures, (B, H', W'), summing to 1."""
        tokens, H, W = self.tokens(x)
        last: Any = self.blocks[-1]
        tokens = self.blocks[:-1](tokens)
        weights = last.attention.weights(last.norm_attention(tokens))
        return weights.mean((1, 2)).view(-1, H, W)
