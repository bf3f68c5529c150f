"""Pictures of any size through a net, piece by piece."""

from collections.abc import Callable

import torch
from torch import Tensor

SIDE, OVERLAP = 512, 64  # of a tile, in pixels of the input; nets that see no further than the overlap leave no seam


def in_tiles(restore: Callable[[Tensor], Tensor], image: Tensor, scale: int = 1) -> Tensor:
    """Apply a net to a picture of any size in the memory that a tile takes.

    Args:
        restore: Maps pictures (1, C, H, W) to pictures (1, C, scale * H, scale * W) in [0, 1], near enough.
        image: A picture (1, C, H, W).
        scale: How many times larger the picture becomes.

    Returns:
        The picture as bytes (scale * H, scale * W, C), on the CPU.
    """
    _, C, H, W = image.shape
    whole = torch.empty(scale * H, scale * W, C, dtype=torch.uint8)
    for top in range(0, H, SIDE):
        for left in range(0, W, SIDE):
            # A multiple of the overlap is a multiple of the squares that nets work on, so all tiles see the same grid.
            above, before = max(0, top - OVERLAP), max(0, left - OVERLAP)
            bottom, right = min(H, top + SIDE), min(W, left + SIDE)
            tile = restore(image[..., above : bottom + OVERLAP, before : right + OVERLAP])[0]
            rows = slice(scale * (top - above), scale * (bottom - above))
            columns = slice(scale * (left - before), scale * (right - before))
            pixels = (tile[:, rows, columns].float().clamp(0, 1) * 255).round().byte()
            whole[scale * top : scale * bottom, scale * left : scale * right] = pixels.movedim(0, -1).cpu()
    return whole
