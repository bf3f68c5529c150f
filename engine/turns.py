"""Nets that are trained against each other: several optimizers, which take turns within every batch."""

from contextlib import nullcontext
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer, do_nothing_closure
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, distributed
from torch.optim.lr_scheduler import ReduceLROnPlateau

from engine.errors import UserError


def in_turns(task: LightningModule) -> list[LightningOptimizer]:
    """Return the optimizers of a task, in the order of ``configure_optimizers``, for one batch.

    Lightning counts the steps of all; here only those of the first are steps of the training, so that limits,
    schedules and the numbers on the dashboard mean what they mean for any other task.
    """
    optimizers = task.optimizers()
    assert isinstance(optimizers, list)
    for optimizer in optimizers[1:]:  # Lightning puts its counters in before every batch
        optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure
    return optimizers


def minimize(
    task: LightningModule,
    optimizer: LightningOptimizer,
    loss: Tensor,
    batch_idx: int,
    accumulate: int,
    keep_graph: bool = False,
) -> bool:
    """Let an optimizer take its turn: gradients of a loss with respect to its own parameters, and a step.

    Returns whether it has made the step; where batches are accumulated, most make none.

    Other parameters that the loss depends on get no gradient, so a net may look through its opponent and leave it as it
    is. Several devices average their gradients at every step.

    Args:
        task: The task, of which ``automatic_optimization`` is off.
        optimizer: One of those that ``in_turns`` has returned.
        loss: What is minimized.
        batch_idx: Number of the batch within the epoch.
        accumulate: Batches whose gradients make a step.
        keep_graph: Whether the next turn goes back through some of the same operations.
    """
    trainer = task.trainer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    strategy = trainer.strategy
    # A strategy of several devices would wait for gradients of all parameters, of which a turn has a part only.
    with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
        task.manual_backward(loss / accumulate, inputs=parameters, retain_graph=keep_graph)
    if (batch_idx + 1) % accumulate and not trainer.is_last_batch:
        return False
    if trainer.world_size > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient) / trainer.world_size)
    optimizer.step()
    optimizer.zero_grad()
    return True


def follow_schedules(task: LightningModule) -> None:
    """Move the learning rates at the end of a batch: ours every time, torch's own behind an epoch."""
    for config in task.trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if isinstance(scheduler, ReduceLROnPlateau):
            raise UserError(
                f"{type(scheduler).__name__} follows a metric; nets that take turns need a schedule in time"
            )
        if config.interval == "step" or task.trainer.is_last_batch:
            scheduler.step()
