"""Let there be Color!, the net of Iizuka et al. 2016, https://doi.org/10.1145/2897824.2925974.

Differs from the paper: any width and any input size. The global features are a mean over the whole picture, so the
picture need not be scaled to one size for them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class ColorNet(nn.Module):
    """Local features fused with what the whole picture shows, then painted at half the resolution.

    Args:
        in_channels: Channels of the input: 1 for lightness.
        out_channels: Channels of the output: 2 colours, or scores of colour bins.
        width: Channels of the first convolution; 64 is the paper's net.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64) -> None:
        super().__init__()
        w = width
        self.num_global = 4 * w
        low = [(in_channels, w, 2), (w, 2 * w, 1), (2 * w, 2 * w, 2), (2 * w, 4 * w, 1), (4 * w, 4 * w, 2)]
        self.low = nn.Sequential(*(conv(*sizes) for sizes in low), conv(4 * w, 8 * w))
        self.local = nn.Sequential(conv(8 * w, 8 * w), conv(8 * w, 4 * w))
        self.overall = nn.Sequential(conv(8 * w, 8 * w, 2), conv(8 * w, 8 * w), conv(8 * w, 8 * w, 2))
        self.summary = nn.Sequential(nn.Linear(8 * w, 8 * w), nn.ReLU(), nn.Linear(8 * w, 4 * w), nn.ReLU())
        self.fuse = nn.Conv2d(8 * w, 4 * w, 1)
        self.paint = nn.ModuleList([conv(4 * w, 2 * w), nn.Sequential(conv(2 * w, w), conv(w, w)), conv(w, w)])
        self.head = nn.Conv2d(w, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map lightness (B, in_channels, H, W) to colours (B, out_channels, H, W)."""
        return self.with_global(x)[0]

    def with_global(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the colours and the features of the whole picture (B, num_global)."""
        H, W = x.shape[-2:]
        right, below = ((8 - side % 8) % 8 for side in (W, H))  # the compiler knows no remainder of negative sizes
        low = self.low(F.pad(x, (0, right, 0, below), mode="replicate"))  # (B, 8 width, H / 8, W / 8)
        overall = self.summary(self.overall(low).mean((2, 3)))  # (B, 4 width)
        local = self.local(low)
        y = F.relu(self.fuse(torch.cat([local, overall[:, :, None, None].expand_as(local)], dim=1)))
        for i, layer in enumerate(self.paint):
            y = layer(F.interpolate(y, scale_factor=2) if i else y)
        painted = F.interpolate(self.head(y), scale_factor=2, mode="bilinear")
        return painted[..., :H, :W], overall
