"""Very Deep Convolutional Networks for Large-Scale Image Recognition, https://arxiv.org/abs/1409.1556.

Differs from the paper: batch norm, any width, pictures of any size, and one linear layer behind an
average over all places instead of three wide ones.
"""

from typing import Literal

from torch import Tensor, nn

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
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, count in enumerate(CONVOLUTIONS[depth]):
            wider = width * min(2**stage, 8)
            for _ in range(count):
                layers += [
                    nn.Conv2d(channels, wider, 3, padding=1, bias=False),
                    nn.BatchNorm2d(wider),
                    nn.ReLU(inplace=True),
                ]
                channels = wider
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        return self.head(self.features(x))
