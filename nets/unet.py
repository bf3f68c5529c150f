"""U-Net: Convolutional Networks for Biomedical Image Segmentation, https://arxiv.org/abs/1505.04597.

Differs from the paper: padded convolutions (the output has the size of the input), batch norm, any input size, and a
``patch`` that lets the net work at reduced resolution, which suits CPUs: they compute wide layers on small maps at a
higher rate than narrow layers on large ones.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by batch norm and ReLU; height and width stay."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Encoder and decoder joined by skip connections at every scale.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Channels of the output: classes to segment, or colours to paint.
        width: Channels at the first scale; every scale below doubles them.
        depth: Number of times the picture is halved.
        patch: Side in pixels of the squares that are folded into channels before the first convolution and unfolded
            after the last; 1 is the paper's net.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64, depth: int = 4, patch: int = 1) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.patch, self.multiple = patch, patch * 2**depth
        self.stem = double_conv(in_channels * patch**2, width)
        self.downs = nn.ModuleList(double_conv(a, b) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.joins = nn.ModuleList(double_conv(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(width, out_channels * patch**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to maps (B, out_channels, H, W)."""
        H, W = x.shape[-2:]
        x = F.pad(x, (0, -W % self.multiple, 0, -H % self.multiple), mode="replicate")  # every scale halves evenly
        x = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, join in zip(reversed(self.ups), reversed(self.joins), strict=True):
            x = join(torch.cat([skips.pop(), up(x)], dim=1))
        return F.pixel_shuffle(self.head(x), self.patch)[..., :H, :W]
