"""94% on CIFAR-10 in 3.29 Seconds on a Single GPU, https://arxiv.org/abs/2404.00498: few wide layers that pool early.

Differs from the paper: a shortcut around the second convolution of every block, as its author's larger nets have,
and a whitening that needs no data. The eigenvectors of small patches of photographs are, near enough, sums and
differences of neighbours in sums and differences of colours, so those are taken, and batch norm gives them one scale.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sums_and_differences(size: int) -> Tensor:
    """Return the orthonormal cosine transform of ``size`` numbers, a filter a row: first their mean."""
    at = torch.arange(size)
    rows = torch.cos(math.pi / size * (at + 0.5) * at[:, None])
    return rows / rows.norm(dim=1, keepdim=True)


class PooledBlock(nn.Module):
    """A convolution that halves height and width at once, and a residual one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))
        nn.init.dirac_(self.first.weight[:in_channels].data)  # the input passes, beside what random filters see
        nn.init.dirac_(self.second.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, in_channels, H, W) to features (B, out_channels, H / 2, W / 2)."""
        x = F.gelu(self.norms[0](F.max_pool2d(self.first(x), 2)))
        return x + F.gelu(self.norms[1](self.second(x)))


class Airbench(nn.Module):
    """A whitened view of 2 x 2 pixels, then pooled blocks; made for pictures of about 32 x 32.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Numbers that come out: classes.
        widths: Channels of every block.
    """

    filters: Tensor

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int] = (64, 256, 256)) -> None:
        super().__init__()
        pixels = sums_and_differences(2)
        filters = torch.einsum("ac,bi,dj->abdcij", sums_and_differences(in_channels), pixels, pixels)
        filters = filters.reshape(4 * in_channels, in_channels, 2, 2)
        self.register_buffer("filters", torch.cat([filters, -filters]))  # both signs, so that GELU loses nothing
        self.whiten = nn.BatchNorm2d(len(self.filters))
        channels = [len(self.filters), *widths]
        self.blocks = nn.Sequential(*(PooledBlock(a, b) for a, b in pairwise(channels)))
        self.head = nn.Linear(channels[-1], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        x = F.gelu(self.whiten(F.conv2d(x, self.filters)))
        return self.head(self.blocks(x).amax((2, 3))) / 8  # so that weights grow before the answers are sure
