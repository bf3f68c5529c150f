"""Latent vectors that follow from numbers, names and pictures: what is generated from them can be made again."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

TRIES, REFINED, SEARCHED = 512, 8, 100  # latent vectors tried, the best of them improved, and by how many steps


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


def nearest_made(generator: Callable[[Tensor], Tensor], image: Tensor, latent_dim: int) -> tuple[Tensor, float]:
    """Return the picture (C, H, W) most like ``image`` (1, C, H, W) that can be made, and the RMS difference.

    Args:
        generator: Makes pictures (N, C, H, W) of latent vectors (N, latent_dim).
        image: The picture to come close to.
        latent_dim: Length of a latent vector.
    """
    tries = latents(range(TRIES), latent_dim).to(image.device)

    def errors(z: Tensor) -> Tensor:
        return (generator(z).float() - image).square().mean((1, 2, 3))

    best = torch.cat([errors(z) for z in tries.split(64)]).argsort()[:REFINED]
    with torch.inference_mode(False), torch.enable_grad():
        z, image = tries[best].clone().requires_grad_(True), image.clone()
        search = torch.optim.Adam([z], lr=0.1)
        for _ in range(SEARCHED):
            search.zero_grad()
            errors(z).sum().backward(inputs=[z])
            search.step()
    error, place = errors(z).min(0)
    return generator(z[place][None])[0].float().detach(), float(error.detach().sqrt())
