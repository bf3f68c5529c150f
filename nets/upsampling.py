"""The generator of data-free distillation: Chen et al. 2019, https://arxiv.org/abs/1904.01186; Fang et al. 2019.

Differs from the papers: pictures of any size, one convolution for each doubling, and no batch norm behind the last one,
which would make half of every picture bright whatever the teacher has seen.
"""

from torch import Tensor, nn


class UpsamplingGenerator(nn.Module):
    """A linear layer to a small picture, then doubling and convolution in turns: smooth strokes, no checkerboards.

    Args:
        latent_dim: Length of the latent vector.
        channels: Channels of the picture.
        size: Height and width of the picture.
        width: Channels of the first convolution, half of those of the small picture; each further one halves them.
    """

    def __init__(self, latent_dim: int, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        sides = [size]
        while sides[0] > 8:
            sides.insert(0, (sides[0] + 1) // 2)
        self.shape = (2 * width, sides[0], sides[0])
        self.first = nn.Linear(latent_dim, 2 * width * sides[0] ** 2)
        layers: list[nn.Module] = [nn.BatchNorm2d(2 * width)]
        a = 2 * width
        for i, side in enumerate(sides[1:]):
            b = max(width >> i, 8)
            layers += [nn.Upsample(side), nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)]
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            a = b
        self.layers = nn.Sequential(*layers, nn.Conv2d(a, channels, 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors (B, latent_dim) to pictures (B, channels, size, size) in [-1, 1]."""
        return self.layers(self.first(z).view(-1, *self.shape))
