"""Latent vectors that follow from numbers, names and pictures: what is generated from them can be made again."""

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset


class NamedLatents(Dataset[dict[str, Any]]):
    """Latent vectors, each drawn by a name: ``latent``, float (latent_dim,), and ``path``, the name."""

    def __init__(self, names: Sequence[str], latent_dim: int) -> None:
        self.names, self.latent_dim = names, latent_dim
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        return {"latent": latents([zlib.crc32(name.encode())], self.latent_dim)[0], "path": name}


def latents(seeds: Sequence[int], latent_dim: int) -> Tensor:
    """Return the latent vectors of numbers, (N, latent_dim)."""
    return torch.stack([torch.randn(latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def latents_for(pictures: Tensor, latent_dim: int) -> Tensor:
    """Return a latent vector for each of some pictures (B, C, H, W), the same for a picture in any batch."""
    contents = (pictures * 255).round().byte().cpu().numpy()
    return latents([zlib.crc32(content.tobytes()) for content in contents], latent_dim).to(pictures.device)


def between(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Return the latent vector a share of the way from one to another (latent_dim,), along the sphere."""
    angle = torch.arccos(F.cosine_similarity(start, end, dim=0).clamp(-0.999, 0.999))
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)
