"""Multi-layer perceptron, Rumelhart, Hinton and Williams 1986, https://www.nature.com/articles/323533a0.

Differs from the paper: any activation, dropout, and pictures as well as rows of numbers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


class MLP(nn.Module):
    """Linear layers with an activation between them.

    Args:
        num_features: Numbers in a row, or channels of a picture.
        num_outputs: Numbers that come out: classes, or quantities.
        hidden: Width of every hidden layer.
        activation: What stands behind every hidden layer.
        dropout: Share of hidden values set to zero in training.
        size: Height and width at which pictures are read; others are resampled to it. Rows of numbers have 1.
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        hidden: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "sigmoid", "gelu"] = "relu",
        dropout: float = 0.0,
        size: int = 1,
    ) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        width = num_features * size**2
        for wider in hidden:
            layers += [nn.Linear(width, wider), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = wider
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (B, num_features) or pictures (B, num_features, H, W) to outputs (B, num_outputs)."""
        if x.ndim == 4 and (torch.compiler.is_exporting() or x.shape[-2:] != (self.size, self.size)):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return self.head(self.layers(x.flatten(1)))


class Perceptron(nn.Module):
    """A single linear layer, which parts classes by straight lines only; Rosenblatt 1958, https://doi.org/10.1037/h0042519.

    Args:
        num_features: Numbers in a row.
        num_outputs: Numbers that come out: classes.
    """

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(num_features, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (B, num_features) to outputs (B, num_outputs)."""
        return self.head(x)


class MLPEnsemble(nn.Module):
    """Several MLPs of one shape, each with weights of its own, that are trained at once; their mean is the answer.

    Lakshminarayanan, Pritzel and Blundell 2017, https://arxiv.org/abs/1612.01474. Differs from the paper: all members
    see the same batches, and there is one product of stacked matrices for all of them in place of one for each.

    Args:
        num_features: Numbers in a row.
        num_outputs: Numbers that come out.
        members: Number of MLPs.
        hidden: Width of every hidden layer of a member.
        activation: What stands behind every hidden layer.
        dropout: Share of hidden values set to zero in training.
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        members: int = 16,
        hidden: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "sigmoid", "gelu"] = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.members, self.activation, self.dropout = members, ACTIVATIONS[activation](), nn.Dropout(dropout)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for narrow, wide in pairwise([num_features, *hidden, num_outputs]):
            bound = narrow**-0.5  # as in nn.Linear
            self.weights.append(torch.empty(members, narrow, wide).uniform_(-bound, bound))
            self.biases.append(torch.empty(members, 1, wide).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (B, num_features) to (B, members, num_outputs) in training, else to their mean (B, num_outputs)."""
        x = x.expand(self.members, *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, self.dropout(self.activation(x)) if i else x, weight)  # (members, B, width)
        return x.movedim(0, 1) if self.training else x.mean(0)
