"""What a student minimizes, and the wishes that make generated pictures worth learning from."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def difference(kind: str, said: Tensor, answers: Tensor) -> Tensor:
    """Return how far a student's logits (B, num_classes) are from the teacher's."""
    if kind == "l1":
        return (said - answers).abs().mean()
    return F.kl_div(said.log_softmax(1), answers.log_softmax(1), log_target=True, reduction="batchmean")


def one_hot_loss(answers: Tensor) -> Tensor:
    """Return the cross entropy of logits (B, num_classes) and the classes that they name: 0 where all is certain."""
    return F.cross_entropy(answers, answers.argmax(1))


def entropy_loss(answers: Tensor) -> Tensor:
    """Return the negative entropy of the mean answer to a batch, given as logits: least where classes are as many."""
    return -torch.special.entr(answers.softmax(1).mean(0)).sum()


def observed(teacher: Any, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ask a teacher, and look at what it computes on the way.

    Args:
        teacher: Network with its last layer as ``head``.
        pictures: Standardized pictures (B, C, H, W).

    Returns:
        Its logits (B, num_classes), what goes into its last layer (B, D), and the mean squared differences of every
        channel's mean and deviation within the batch from the running ones, relative to the running deviation: so every
        layer counts, where the sums of DeepInversion are ruled by the widest. 0 without batch norm.
    """
    features: list[Tensor] = []
    distances: list[Tensor] = []

    def compare(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        known, x = layer.state_dict(), inputs[0].float()
        deviation = (known["running_var"] + 1e-5).sqrt()
        means = ((x.mean((0, 2, 3)) - known["running_mean"]) / deviation).square()
        deviations = ((x.var((0, 2, 3), correction=0) + 1e-5).sqrt() / deviation - 1).square()
        distances.append((means + deviations).mean())

    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(compare) for layer in layers]
    hooks.append(teacher.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float())))
    answers = teacher.forward(pictures).float()  # as it is written: a compiled one would pass the hooks by
    for hook in hooks:
        hook.remove()
    return answers, features[0], torch.stack(distances).mean() if distances else answers.new_zeros(())
