"""Random changes to a whole batch at once, each sample its own, on the device where the batch lies."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """Return ``count`` random numbers in [low, high) on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def random_grid(image: Tensor, degrees: float, scale: float, flip: bool, generator: Generator) -> Tensor:
    """Return where ``warped`` finds the pixels of pictures that are turned, scaled, shifted and mirrored at random.

    Args:
        image: Pictures (B, C, H, W).
        degrees: Largest angle.
        scale: Largest change of size, as a share of the size; shifts are half as large.
        flip: Whether every second picture is mirrored left to right.
        generator: Source of all randomness.

    Returns:
        A sampling grid (B, H, W, 2).
    """
    B, _, H, W = image.shape
    angle = torch.deg2rad(uniform(B, -degrees, degrees, generator))
    size = uniform(B, 1 - scale, 1 + scale, generator)
    side = torch.where(uniform(B, 0, 1, generator) < 0.5, -1.0, 1.0) if flip else torch.ones_like(size)
    right, down = (uniform(B, -scale / 2, scale / 2, generator) for _ in range(2))
    ratio = H / W  # in the grid both axes run from -1 to 1, so a turn must know their lengths
    x = torch.stack([side * angle.cos() * size, -angle.sin() * size * ratio, right])
    y = torch.stack([side * angle.sin() * size / ratio, angle.cos() * size, down])
    return F.affine_grid(torch.stack([x, y]).permute(2, 0, 1), [B, 1, H, W], align_corners=False)


def warped(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Return pictures (B, C, H, W) sampled at a grid; what comes in at the border is a reflection."""
    return F.grid_sample(image, grid, mode=mode, padding_mode="reflection", align_corners=False)


def random_shift(image: Tensor, pixels: int, flip: bool, generator: Generator) -> Tensor:
    """Move pictures (B, C, H, W) by whole pixels, up to so many in each direction, and mirror every second one.

    Sharper and faster than sampling at a grid, which interpolates.
    """
    B, _, H, W = image.shape
    padded = F.pad(image, (pixels, pixels, pixels, pixels), mode="reflect")
    down, right = torch.randint(2 * pixels + 1, (2, B, 1), generator=generator, device=image.device)
    rows = down + torch.arange(H, device=image.device)
    columns = right + torch.arange(W, device=image.device)
    if flip:
        mirrored = torch.rand(B, 1, generator=generator, device=image.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(B, device=image.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(image: Tensor, side: int, generator: Generator) -> Tensor:
    """Paint a square of every picture (B, C, H, W) grey, somewhere (DeVries and Taylor 2017, arXiv:1708.04552)."""
    B, _, H, W = image.shape
    y, x = (torch.randint(n, (B, 1), generator=generator, device=image.device) for n in (H, W))
    rows = (torch.arange(H, device=image.device) - y).abs() < side / 2
    columns = (torch.arange(W, device=image.device) - x).abs() < side / 2
    return image.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.5)


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


def random_symmetry(image: Tensor, turn: bool, generator: Generator) -> Tensor:
    """Mirror every second picture (B, C, S, S) left to right; or, if ``turn``, draw from all symmetries of a square."""
    left_right, up_down, over = torch.rand(3, len(image), 1, 1, 1, generator=generator, device=image.device) < 0.5
    image = torch.where(left_right, image.flip(3), image)
    if turn:
        image = torch.where(up_down, image.flip(2), image)
        image = torch.where(over, image.transpose(2, 3), image)
    return image
