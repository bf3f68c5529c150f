"""What a discriminator and a generator minimize, given what is said of real and of generated pictures."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WON = 0.05  # loss of a discriminator beside 1.4 of one that knows nothing; 0.4 is usual


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return what a discriminator minimizes, given what it says of real and of generated pictures (B,)."""
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "wasserstein":
        return fake.mean() - real.mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(kind: str, fake: Tensor) -> Tensor:
    """Return what a generator minimizes, given what is said of its pictures (B,)."""
    return F.softplus(-fake).mean() if kind == "non_saturating" else -fake.mean()


def discriminator_has_won(kind: str, loss: float, ranked_right: float) -> dict[str, str]:
    """Return what is wrong when a discriminator is sure of everything: its opponent learns nothing from it any more.

    Args:
        kind: The loss. The critic of ``wasserstein`` may be as good as it can.
        loss: What the discriminator has minimized lately.
        ranked_right: Share of pairs whose real picture looked more real to it, lately.
    """
    if kind == "wasserstein" or loss > WON or ranked_right < 1 - WON:
        return {}
    return {
        "discriminator_has_won": f"the discriminator has won: it tells all pictures apart (loss {loss:.2g}), and the "
        f"other net learns nothing from it\n"
        f"lower --model.optimizer_d.lr, raise --model.optimizer.lr, or make --model.discriminator.width smaller"
    }


def slope_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return how far the discriminator's slope is from 1, squared, at random places between pictures (B, C, H, W)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    with torch.autocast(real.device.type, enabled=False):  # a slope of a slope needs all its digits
        places = (share * real.float() + (1 - share) * fake.float()).requires_grad_(True)
        height = discriminator.forward(places).sum()  # not the compiled one, which knows no slopes of slopes
        slopes = torch.autograd.grad(height, places, create_graph=True)[0]
    return (slopes.flatten(1).norm(dim=1) - 1).square().mean()
