"""SRResNet, the generator of Photo-Realistic Single Image Super-Resolution Using a GAN, https://arxiv.org/abs/1609.04802.

Differs from the paper: no batch norm (as EDSR, https://arxiv.org/abs/1707.02921), one step of ``pixel_shuffle`` at the
end, which keeps all convolutions at the small size, and an answer that is added to the bicubic enlargement.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nets.dncnn import Shortcut


class SRResNet(nn.Module):
    """Residual blocks at the small size, unfolded into a picture ``scale`` times as large.

    Args:
        in_channels: Channels of the small picture.
        out_channels: Channels of the large picture, as many.
        scale: How many times larger the picture becomes.
        width: Channels of the features.
        depth: Number of residual blocks.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int, width: int = 64, depth: int = 16) -> None:
        super().__init__()
        self.scale = scale
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Shortcut(width) for _ in range(depth)))
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, out_channels * scale**2, 3, padding=1)
        for parameter in self.head.parameters():  # the start is the bicubic enlargement
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to pictures (B, out_channels, scale * H, scale * W)."""
        features = self.stem(x)
        details = self.head(F.relu(features + self.join(self.blocks(features))))
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="bicubic", antialias=True)
        return enlarged + F.pixel_shuffle(details, self.scale)
