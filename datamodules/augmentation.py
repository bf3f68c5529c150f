"""Random changes to a whole batch at once, each sample its own, on the device where the batch lies."""

import torch
from torch import Tensor
from torch.nn import functional as F


def uniform(count: int, low: float, high: float, like: Tensor) -> Tensor:
    """Return ``count`` random numbers in [low, high) on the device of ``like``."""
    return low + (high - low) * torch.rand(count, device=like.device)


def random_affine(image: Tensor, mask: Tensor, degrees: float, scale: float, flip: bool) -> tuple[Tensor, Tensor]:
    """Turn, scale, shift and mirror pictures and their masks together; what comes in at the border is a reflection.

    Args:
        image: Pictures (B, C, H, W), float.
        mask: Class ids (B, H, W), int64.
        degrees: Largest angle.
        scale: Largest change of size, as a share of the size; shifts are half as large.
        flip: Whether every second picture is mirrored left to right.

    Returns:
        Pictures and masks of the same shapes.
    """
    B, _, H, W = image.shape
    angle = torch.deg2rad(uniform(B, -degrees, degrees, image))
    size = uniform(B, 1 - scale, 1 + scale, image)
    side = torch.where(torch.rand(B, device=image.device) < 0.5, -1.0, 1.0) if flip else torch.ones_like(size)
    ratio = H / W  # in the grid both axes run from -1 to 1, so a turn must know their lengths
    x = torch.stack([side * angle.cos() * size, -angle.sin() * size * ratio, uniform(B, -scale / 2, scale / 2, image)])
    y = torch.stack([side * angle.sin() * size / ratio, angle.cos() * size, uniform(B, -scale / 2, scale / 2, image)])
    grid = F.affine_grid(torch.stack([x, y]).permute(2, 0, 1), [B, 1, H, W], align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    moved = F.grid_sample(
        mask[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return image, moved[:, 0].long()


def random_colour(image: Tensor, contrast: float = 0.3, brightness: float = 0.1, tint: float = 0.1) -> Tensor:
    """Change contrast, brightness and the balance of the channels of pictures (B, C, H, W) in [0, 1]."""
    B, C = image.shape[:2]
    gain = uniform(B, 1 - contrast, 1 + contrast, image)[:, None] * uniform(B * C, 1 - tint, 1 + tint, image).view(B, C)
    offset = uniform(B, -brightness, brightness, image)
    return ((image - 0.5) * gain[:, :, None, None] + 0.5 + offset[:, None, None, None]).clamp(0, 1)
