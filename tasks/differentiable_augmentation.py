"""Random changes that gradients pass through (Zhao et al. 2020, https://arxiv.org/abs/2006.10738)."""

import torch
from torch import Tensor


def augmented(pictures: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) in [-1, 1], each in other colours, moved, and with a square missing.

    A discriminator that sees real and generated pictures only so cannot learn the real ones by heart, and the generator
    does not learn to make such changes, since they tell nothing of what is real.
    """
    B, C, H, W = pictures.shape

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(B, 1, 1, 1, device=pictures.device)

    if C == 3:
        pictures = pictures + draw(-0.5, 0.5)  # brightness
        grey = pictures.mean(1, keepdim=True)
        pictures = grey + draw(0, 2) * (pictures - grey)  # saturation
        mean = pictures.mean((1, 2, 3), keepdim=True)
        pictures = mean + draw(0.5, 1.5) * (pictures - mean)  # contrast

    # Moved by whole pixels, an eighth of the side at most; what comes in is as the border was.
    most = max(1, H // 8)
    down, right = (draw(-most, most + 1).floor().long().view(B, 1) for _ in range(2))
    rows = (torch.arange(H, device=pictures.device) + down).clamp(0, H - 1)
    columns = (torch.arange(W, device=pictures.device) + right).clamp(0, W - 1)
    sample = torch.arange(B, device=pictures.device).view(B, 1, 1)
    pictures = pictures.movedim(1, -1)[sample, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)

    # A square of half the side is missing somewhere, part of it maybe outside.
    side = H // 2
    top, left = draw(-side // 2, H - side // 2), draw(-side // 2, W - side // 2)
    y = torch.arange(H, device=pictures.device).view(1, 1, H, 1)
    x = torch.arange(W, device=pictures.device).view(1, 1, 1, W)
    missing = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    return pictures * ~missing
