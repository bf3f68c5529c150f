"""Very Deep Convolutional Networks for Large-Scale Image Recognition, https://arxiv.org/abs/1409.1556.

Differs from the paper: batch norm, any width, pictures of any size, and one linear layer behind an
average over all places instead of three wide ones.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from nets.cnn import stage

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each followed by maximum pooling.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Numbers that come out: classes.
        depth: Layers with weights, the paper's two further linear ones included.
        width: Channels of the first stage; they double until the fourth.
        dropout: Share of the last features set to zero in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: Literal[11, 13, 16, 19] = 16,
        width: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [in_channels, *(width * min(2**i, 8) for i in range(5))]
        counts = zip(pairwise(widths), CONVOLUTIONS[depth], strict=True)
        layers = [layer for (a, b), count in counts for layer in stage(a, b, count)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(widths[-1], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        return self.head(self.features(x))
