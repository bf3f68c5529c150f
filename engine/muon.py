"""Muon: weight matrices that move by the orthogonal matrix nearest to their momentum."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

# Of the polynomials ax + bx^3 + cx^5 that take the singular values of a matrix to about 1, five times over.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(AdamW):
    """Momentum that is made orthogonal, for weight matrices; AdamW for everything else.

    From https://kellerjordan.github.io/posts/muon/, with steps as large as AdamW's are (https://arxiv.org/abs/2502.16982),
    so that one learning rate does for all parameters. PyTorch's and timm's iterate in bfloat16, by which CPUs without
    units for it train fifteen times slower; this one does so in the precision of the weights.

    Args:
        params: Parameters, or groups of them; those of a group with ``muon: False``, as embeddings, are AdamW's.
        lr: Learning rate.
        momentum: Share of the momentum that a step keeps.
        betas: Shares that AdamW's averages of gradients and of their squares keep.
        weight_decay: Decay of the weights, times the learning rate, at every step.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 8e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, lr, betas, weight_decay=weight_decay)
        self.defaults |= {"momentum": momentum, "muon": True}
        for group in self.param_groups:
            group.update({**self.defaults, **group})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; gradients of matrices are used up by it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim < 2 or weight.grad is None or not group["muon"]:
                    continue
                state = self.state[weight]
                if not state:  # AdamW counts steps, and misses the number in what it loads
                    state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
                state["step"] += 1
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"])  # as Nesterov's
                update = orthogonal(ahead.flatten(1))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-0.2 * group["lr"] * math.sqrt(max(update.shape)))
                weight.grad = None  # nothing is left for AdamW
        super().step()
        return loss


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix (M, N) with the same singular vectors, whose singular values are about 1."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.mT if len(matrix) > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = wide @ wide.mT
        wide = torch.addmm(wide, torch.addmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return wide.mT if len(matrix) > matrix.shape[1] else wide
