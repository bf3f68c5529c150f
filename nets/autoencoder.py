"""Convolutional autoencoder: a picture through a narrow middle (Masci et al. 2011, doi:10.1007/978-3-642-21735-7_7).

Differs from the paper: batch norm, strided convolutions in place of max pooling, trained as a whole. There are no skip
connections: what does not fit through the middle, such as noise, is lost, which is the idea.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Autoencoder(nn.Module):
    """An encoder that halves the picture several times, and a decoder that mirrors it.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Channels of the output picture.
        width: Channels at the first scale; every scale below doubles them.
        depth: Number of times the picture is halved.
        middle: Channels of the narrow middle.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 32, depth: int = 2, middle: int = 16) -> None:
        super().__init__()
        self.multiple = 2**depth
        widths = [width * 2**i for i in range(depth + 1)]
        self.stem = conv_norm(nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
        self.downs = nn.Sequential(*(conv_norm(nn.Conv2d(a, b, 4, 2, 1, bias=False)) for a, b in pairwise(widths)))
        self.middle = nn.Conv2d(widths[-1], middle, 1)
        self.wide = conv_norm(nn.Conv2d(middle, widths[-1], 3, padding=1, bias=False))
        ups = [conv_norm(nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False)) for a, b in pairwise(widths)]
        self.ups = nn.Sequential(*reversed(ups))
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to pictures (B, out_channels, H, W)."""
        H, W = x.shape[-2:]
        x = F.pad(x, (0, -W % self.multiple, 0, -H % self.multiple), mode="replicate")
        code = self.middle(self.downs(self.stem(x)))  # (B, middle, H / 2**depth, W / 2**depth)
        return self.head(self.ups(self.wide(code)))[..., :H, :W]


def conv_norm(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU behind it."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
