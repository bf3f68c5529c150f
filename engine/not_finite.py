"""Where a loss or weights that are no numbers come from: a sample, a weight, a layer."""

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn


def origin(trainer: Trainer, task: LightningModule, batch: dict[str, Any], batch_idx: int) -> str:
    """Return where a loss comes from that is no number, and what to do.

    In this order: a sample, weights, the first layer that answers with none. The training must end with this: to find
    the layer, the step is taken again.
    """
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            rows = (~value.isfinite()).reshape(len(value), -1).any(1).nonzero().flatten().tolist()
            others = f" and of {len(rows) - 1} others" if len(rows) > 1 else ""
            return (
                f"{name} of sample {rows[0]} of the batch{others} holds NaN or infinity; mend such data or leave it out"
            )
    if lost := lost_weights(trainer, task):
        return lost
    for name, facts in task.named_buffers():
        if facts.isnan().any():
            return f"{name} is NaN, and comes from the data; look for NaN there"

    class Found(Exception):
        """A layer has answered with what is no number."""

    def look(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        answers = output if isinstance(output, tuple) else (output,)
        if any(isinstance(answer, Tensor) and not answer.isfinite().all() for answer in answers):
            raise Found(name)

    for name, layer in task.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(partial(look, name))
    rate = f"lower the learning rate (now {largest_rate(trainer):g})"
    try:
        with trainer.precision_plugin.train_step_context(), torch.compiler.set_stance("force_eager"):
            task.training_step(batch, batch_idx)
    except Found as found:
        return f"the first layer to answer with none is {found}; {rate}, or look for odd values in the data"
    return f"all layers answer with numbers, the loss does not; {rate}, take another loss, or look for odd targets"


def lost_weights(trainer: Trainer, task: LightningModule) -> str | None:
    """Return which weights are no numbers any more, and what to do, or None if there are no such."""
    named = dict(task.named_parameters())
    shards = [getattr(weight, "to_local", weight.detach)() for weight in named.values()]
    finite = torch.stack([shard.isfinite().all() for shard in shards])
    if finite.all():
        return None
    first = list(named)[finite.tolist().index(False)]
    return (
        f"the weights {first} are no numbers any more, because a gradient was none; lower the learning rate "
        f"(now {largest_rate(trainer):g}), or limit gradients by --trainer.gradient_clip_val 1"
    )


def largest_rate(trainer: Trainer) -> float:
    """Return the largest learning rate that was set, whatever the schedule has made of it."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return max(float(group.get("initial_lr", group["lr"])) for group in groups)
