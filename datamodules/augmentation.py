"""Random changes to a whole batch at once, each sample its own, on the device where the batch lies."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """Return ``count`` random numbers in [low, high) on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def random_affine(
    image: Tensor, mask: Tensor, degrees: float, scale: float, flip: bool, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Turn, scale, shift and mirror pictures and their masks together; what comes in at the border is a reflection.

    Args:
        image: Pictures (B, C, H, W), float.
        mask: Class ids (B, H, W), int64.
        degrees: Largest angle.
        scale: Largest change of size, as a share of the size; shifts are half as large.
        flip: Whether every second picture is mirrored left to right.
        generator: Source of all randomness.

    Returns:
        Pictures and masks of the same shapes.
    """
    B, _, H, W = image.shape
    angle = torch.deg2rad(uniform(B, -degrees, degrees, generator))
    size = uniform(B, 1 - scale, 1 + scale, generator)
    side = torch.where(uniform(B, 0, 1, generator) < 0.5, -1.0, 1.0) if flip else torch.ones_like(size)
    right, down = (uniform(B, -scale / 2, scale / 2, generator) for _ in range(2))
    ratio = H / W  # in the grid both axes run from -1 to 1, so a turn must know their lengths
    x = torch.stack([side * angle.cos() * size, -angle.sin() * size * ratio, right])
    y = torch.stack([side * angle.sin() * size / ratio, angle.cos() * size, down])
    grid = F.affine_grid(torch.stack([x, y]).permute(2, 0, 1), [B, 1, H, W], align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    moved = F.grid_sample(mask[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return image, moved[:, 0].long()


def random_colour(image: Tensor, generator: Generator, gamma: float = 0.4, tint: float = 0.1) -> Tensor:
    """Change the tone curve and the balance of the channels of pictures (B, C, H, W) in [0, 1]; nothing is clipped.

    Args:
        image: Pictures.
        generator: Source of all randomness.
        gamma: The exponent lies between 1 / (1 + gamma) and 1 + gamma, as often below 1 as above.
        tint: Largest change of a channel, as a share.
    """
    B, C = image.shape[:2]
    exponent = (1 + gamma) ** uniform(B, -1, 1, generator)
    gain = uniform(B * C, 1 - tint, 1 + tint, generator).view(B, C)
    return image ** exponent[:, None, None, None] * gain[:, :, None, None]
