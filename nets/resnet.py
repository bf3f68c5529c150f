"""Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.

Differs from the paper: any width, a 3x3 stem for small pictures beside the paper's for large ones.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps height and width but for the stride, and batch norm."""
    convolution = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 2 halves height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(in_channels, out_channels, 3, stride)
        self.second = conv_norm(out_channels, out_channels, 3)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(in_channels, out_channels, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, in_channels, H, W) to features (B, out_channels, H / stride, W / stride)."""
        # Pixels are left out before the shortcut: with a stride in it, the gradients of a narrow net overwrite other
        # memory on CPUs with AVX2 (https://github.com/uxlfoundation/oneDNN/issues/6035).
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x[:, :, :: self.stride, :: self.stride]))


class ResNet(nn.Module):
    """Stages of residual blocks, each stage at half the resolution and twice the width of the one before.

    The widths and depths given here by default are those of ResNet-18.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Numbers that come out: classes.
        width: Channels of the first stage.
        depths: Number of blocks of every stage.
        large: Whether the stem reduces pictures to a quarter first, as the paper's does for 224 x 224.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        depths: Sequence[int] = (2, 2, 2, 2),
        large: bool = False,
    ) -> None:
        super().__init__()
        self.stem = conv_norm(in_channels, width, 7 if large else 3, 2 if large else 1)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        blocks: list[nn.Module] = []
        channels = width
        for stage, depth in enumerate(depths):
            for block in range(depth):
                wider = width * 2**stage
                blocks.append(ResidualBlock(channels, wider, stride=2 if stage > 0 and block == 0 else 1))
                channels = wider
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        x = self.blocks(self.pool(F.relu(self.stem(x))))
        return self.head(x.mean((2, 3)))
