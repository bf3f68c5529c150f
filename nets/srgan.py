"""The discriminator of Photo-Realistic Single Image Super-Resolution Using a GAN, https://arxiv.org/abs/1609.04802.

Differs from the paper: spectral norm (https://arxiv.org/abs/1802.05957) in the place of batch norm, and an average over
all places in the place of two wide linear layers, so that pictures may have any size.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Pairs of 3x3 convolutions, of which every second one halves height and width.

    Args:
        in_channels: Channels of the picture.
        width: Channels of the first pair; each further pair doubles them, as ``depth`` says.
        depth: Number of pairs.
    """

    def __init__(self, in_channels: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        widths = [in_channels, *(width * 2**i for i in range(depth))]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            for channels, stride in ((a, 1), (b, 2)):
                layers.append(spectral_norm(nn.Conv2d(channels, b, 3, stride, padding=1)))
                layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers)
        self.head = spectral_norm(nn.Linear(widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) in [0, 1] to numbers (B,), the larger the more real they look."""
        return self.head(self.layers(2 * x - 1).mean((2, 3))).squeeze(1)
