"""A small convolutional network in the manner of LeNet, LeCun et al. 1998, https://doi.org/10.1109/5.726791.

Differs from the paper: 3x3 convolutions in pairs, batch norm, ReLU, maximum pooling, and an average over all places
instead of fully connected layers, so that pictures may have any size.
"""

from itertools import pairwise

from torch import Tensor, nn


def stage(in_channels: int, out_channels: int, count: int) -> list[nn.Module]:
    """Some 3x3 convolutions, each followed by batch norm and ReLU, and maximum pooling that halves height and width."""
    layers: list[nn.Module] = []
    for channels in [in_channels] + [out_channels] * (count - 1):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return [*layers, nn.MaxPool2d(2, ceil_mode=True)]


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
        widths = [in_channels, width, 2 * width, 4 * width]
        layers = [layer for a, b in pairwise(widths) for layer in stage(a, b, count=2)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(widths[-1], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        return self.head(self.features(x))
