"""Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising, https://arxiv.org/abs/1608.03981.

Differs from the paper: shortcuts around every two convolutions take the place of batch norm (but for them all is
linear, so noise passes easily to where it is taken away), and the net works on patches of pixels folded into channels
(as FFDNet, https://arxiv.org/abs/1710.04026): CPUs compute wide layers on small maps at a higher rate than narrow
layers on large ones. ``patch=1`` with ``depth=15`` and ``width=64`` has the paper's size.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class Shortcut(nn.Module):
    """Two 3x3 convolutions whose result is added to the input; at the start it is the input.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, width, H, W) to features of the same shape."""
        return x + self.second(F.relu(self.first(x)))


class DnCNN(nn.Module):
    """A plain stack of convolutions that finds the noise, which is then taken away.

    Args:
        in_channels: Channels of the noisy picture.
        out_channels: Channels of the clean picture, as many.
        width: Channels of the features.
        depth: Number of convolutions between the first and the last; even.
        patch: Side in pixels of the squares that are folded into channels.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 48, depth: int = 6, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(in_channels * patch**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Shortcut(width) for _ in range(depth // 2)))
        self.head = nn.Conv2d(width, out_channels * patch**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map noisy pictures (B, in_channels, H, W) to clean ones (B, out_channels, H, W)."""
        H, W = x.shape[-2:]
        padded = F.pad(x, (0, -W % self.patch, 0, -H % self.patch), mode="replicate")
        features = self.blocks(self.stem(F.pixel_unshuffle(padded - 0.5, self.patch)))
        noise = F.pixel_shuffle(self.head(features), self.patch)
        return x - noise[..., :H, :W]
