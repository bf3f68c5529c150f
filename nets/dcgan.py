"""DCGAN, Unsupervised Representation Learning with Deep Convolutional GANs, https://arxiv.org/abs/1511.06434.

Differs from the paper: pictures of any size from 8 pixels on, and a choice of what keeps the discriminator in bounds.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def sides(size: int) -> list[int]:
    """Return the side of a picture, half of it, half of that, ..., rounded up, until it is 4 or less.

    Raises:
        ValueError: The picture is too small for it.
    """
    if size < 8:
        raise ValueError(f"DCGAN makes pictures from 8 pixels in width on, not of {size}")
    halves = [size]
    while halves[-1] > 4:
        halves.append((halves[-1] + 1) // 2)
    return halves


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
        smallest, *larger = reversed(sides(size))
        widths = [width * 2**i for i in reversed(range(len(larger)))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, widths[0], smallest, bias=False)]
        for side, (a, b) in zip(larger, pairwise([*widths, channels]), strict=True):
            kernel = 4 - side % 2  # 2n pixels wide, or 2n - 1
            layers += [nn.BatchNorm2d(a), nn.ReLU(True), nn.ConvTranspose2d(a, b, kernel, 2, 1, bias=b == channels)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors (B, latent_dim) to pictures (B, channels, size, size) in [-1, 1]."""
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """Strided convolutions from a picture to one number, each half as large as the one before.

    Args:
        channels: Channels of the picture.
        size: Height and width of the picture.
        width: Channels after the first layer; every layer below doubles them.
        norm: ``batch`` as in the paper; ``spectral``, which divides the weights of every layer by their largest
            singular value (https://arxiv.org/abs/1802.05957); or ``none``, as a penalty on its slope asks for.
    """

    def __init__(
        self, channels: int, size: int, width: int = 64, norm: Literal["batch", "spectral", "none"] = "batch"
    ) -> None:
        super().__init__()
        *larger, smallest = sides(size)
        widths = [channels, *(width * 2**i for i in range(len(larger)))]
        layers: list[nn.Module] = []
        for side, (a, b) in zip(larger, pairwise(widths), strict=True):
            layers.append(nn.Conv2d(a, b, 4 - side % 2, 2, 1))
            layers += [nn.BatchNorm2d(b)] if norm == "batch" and a != channels else []
            layers.append(nn.LeakyReLU(0.2, True))
        layers.append(nn.Conv2d(widths[-1], 1, smallest))
        if norm == "spectral":
            layers = [spectral_norm(layer) if isinstance(layer, nn.Conv2d) else layer for layer in layers]
        self.layers = nn.Sequential(*layers, nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, channels, size, size) in [-1, 1] to numbers (B,), the larger the more real they look."""
        return self.layers(x)
