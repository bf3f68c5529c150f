"""A small convolutional network in the manner of LeNet, LeCun et al. 1998, https://doi.org/10.1109/5.726791.

Differs from the paper: 3x3 convolutions in pairs, batch norm, ReLU, maximum pooling, and an average over all places
instead of fully connected layers, so that pictures may have any size.
"""

from torch import Tensor, nn


class CNN(nn.Module):
    """Three pairs of convolutions, each at half the resolution of the one before.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Numbers that come out: classes.
        width: Channels of the first pair; each further pair doubles them.
        dropout: Share of the last features set to zero in training.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for wider in (width, 2 * width, 4 * width):
            for _ in range(2):
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
