"""DCGAN, Unsupervised Representation Learning with Deep Convolutional GANs, https://arxiv.org/abs/1511.06434.

Differs from the paper: pictures of any size that can be halved down to 4 ... 7, and spectral norm in the place of the
discriminator's batch norm (https://arxiv.org/abs/1802.05957).
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def stages(size: int) -> tuple[int, int]:
    """Return the side at which a picture starts, 4 to 7, and how often it doubles until it is ``size`` wide.

    Raises:
        ValueError: No doubling leads to the size.
    """
    side, doublings = size, 0
    while side > 7 and side % 2 == 0:
        side, doublings = side // 2, doublings + 1
    if not 4 <= side <= 7 or not doublings:
        sizes = sorted(first * 2**times for first in (4, 5, 6, 7) for times in range(1, 6))
        named = ", ".join(str(possible) for possible in sizes if 24 <= possible <= 128)
        raise ValueError(f"DCGAN makes pictures {named} pixels wide, not {size}")
    return side, doublings


class Generator(nn.Module):
    """Transposed convolutions from a latent vector to a picture, each twice as large as the one before.

    Args:
        latent_dim: Length of the latent vector.
        channels: Channels of the picture.
        size: Height and width of the picture.
        width: Channels before the last layer; every layer above doubles them.
    """

    def __init__(self, latent_dim: int, channels: int, size: int, width: int = 64) -> None:
        super().__init__()
        side, doublings = stages(size)
        widths = [width * 2**i for i in reversed(range(doublings))]
        layers = [nn.ConvTranspose2d(latent_dim, widths[0], side, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)]
        for a, b in pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors (B, latent_dim) to pictures (B, channels, size, size) in [-1, 1]."""
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """Strided convolutions from a picture to one number, each half as large as the one before.

    Args:
        channels: Channels of the picture.
        size: Height and width of the picture.
        width: Channels after the first layer; every layer below doubles them.
        spectral: Whether every layer's weights are divided by their largest singular value, which keeps the gradient
            that the generator gets within bounds.
    """

    def __init__(self, channels: int, size: int, width: int = 64, spectral: bool = True) -> None:
        super().__init__()
        side, halvings = stages(size)
        widths = [channels, *(width * 2**i for i in range(halvings))]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        layers.append(nn.Conv2d(widths[-1], 1, side))
        if spectral:
            layers = [spectral_norm(layer) if isinstance(layer, nn.Conv2d) else layer for layer in layers]
        self.layers = nn.Sequential(*layers, nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, channels, size, size) in [-1, 1] to numbers (B,), the larger the more real they look."""
        return self.layers(x)
